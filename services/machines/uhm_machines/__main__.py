"""`python -m uhm_machines`: serves until SIGTERM or SIGINT. Machines go on; see `uhm_machines.drain`."""

from uhm_common.bootstrap import main
from uhm_machines.app import serve
from uhm_machines.settings import Settings

if __name__ == "__main__":
    main("machines", Settings, serve)
