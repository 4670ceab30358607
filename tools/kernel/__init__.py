"""Building the guest's kernel."""
