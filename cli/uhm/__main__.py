"""`uhm`: the commands, and how their ends become exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from uhm.errors import CommandError

__all__ = ["cli", "main"]

# Command → module of `uhm.commands`, in the order of the help. Modules are imported when their command is used.
COMMANDS = {
    "up": "system",
    "down": "system",
    "doctor": "doctor",
    "register": "account",
    "login": "account",
    "logout": "account",
    "whoami": "account",
    "passwd": "account",
    "unregister": "account",
    "sessions": "sessions",
    "keys": "keys",
    "registry": "registries",
    "pull": "images",
    "build": "build",
    "load": "load",
    "customize": "customize",
    "images": "images",
    "rmi": "images",
    "cancel": "images",
    "export": "export",
    "storage": "storage",
    "publish": "storage",
    "inspect": "inspect",
    "files": "files",
    "cat": "files",
    "diff": "files",
    "sbom": "files",
    "run": "run",
    "ps": "machines",
    "logs": "machines",
    "stop": "machines",
    "start": "machines",
    "rm": "machines",
    "df": "usage",
    "gc": "usage",
    "users": "users",
    "invitations": "users",
    "signing-keys": "users",
    "audit": "audit",
}
INTERRUPTED = 130


class CommandGroup(click.Group):
    """Commands that are imported when they are looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(f"uhm.commands.{COMMANDS[cmd_name]}"), cmd_name.replace("-", "_")
        )
        return command


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["--help"], "max_content_width": 120})
@click.version_option(package_name="uhm-cli", prog_name="uhm")
def cli() -> None:
    """Container images as virtual machines that start at once.

    `uhm up` starts the system on this machine; then `uhm register`, `uhm login`, `uhm run nginx`. The client commands
    talk to $UHM_URL (default http://127.0.0.1:5000).
    """


def main() -> None:
    """Runs the command line of this process and exits."""
    sys.exit(run())


def run() -> int:
    """Runs it and answers the exit code."""
    try:
        answer = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except CommandError as error:
        click.echo(f"uhm: {error}", err=True)
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        click.echo(f"uhm: {error.filename or 'The system'}: {error.strerror or error}.", err=True)
        return 1
    return answer if isinstance(answer, int) else 0


if __name__ == "__main__":
    main()
