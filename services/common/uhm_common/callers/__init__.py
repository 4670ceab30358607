"""Who calls, how that is known, and what they may."""
