"""How much may be asked, by whom, and at a time."""
