"""Runs images as virtual machines."""
