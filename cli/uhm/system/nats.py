"""The configuration of the NATS server of one machine."""

from __future__ import annotations

from uhm.system.ports import LOOPBACK

__all__ = ["configuration"]

# `sync_interval: always`: an event is acknowledged once it is on the disk, not up to two minutes before. Our events are
# one per build, so a flush each costs nothing that anybody could notice, and a build whose event was lost in a power
# cut would wait until somebody looks into the database.
TEMPLATE = """\
listen: "{host}:{port}"
server_name: "uhmalguhm"
authorization {{ token: "{token}" }}
jetstream {{
  store_dir: "nats"
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: 4GB
}}
max_payload: 1MB
"""


def configuration(*, port: int, token: str) -> str:
    """The file; paths in it are relative to the state directory."""
    return TEMPLATE.format(host=LOOPBACK, port=port, token=token)
