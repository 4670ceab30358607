"""What runs inside a machine, and how it is packed."""
