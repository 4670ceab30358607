"""Starting machines: which kind of start fits (`wish`, `chooser`), and its three kinds (`spawner`, `restorer`)."""

from uhm_machines.starts.chooser import Started, Starts
from uhm_machines.starts.plan import Plan
from uhm_machines.starts.wish import Wish

__all__ = ["Plan", "Started", "Starts", "Wish"]
