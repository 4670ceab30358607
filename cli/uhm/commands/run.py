"""`uhm run`: an image as a machine, with docker's options where docker has the same thing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uhm.commands.machines import show_started
from uhm.errors import CommandError
from uhm.output import Output, with_output
from uhm.render.waterfall import waterfall
from uhm.values import exposed_port, memory_mib, parse_environment, parse_port, vcpus

if TYPE_CHECKING:
    from uhm.client import Client

__all__ = ["RunOptions", "machine_request", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What was given on the command line, still as text."""

    image: str
    command: tuple[str, ...]
    detach: bool = False
    name: str = ""
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    env: tuple[str, ...] = ()
    env_file: tuple[Path, ...] = ()
    workdir: str = ""
    user: str = ""
    memory: str | None = None
    cpus: str | None = None
    entrypoint: str | None = None
    remove: bool = False
    hostname: str = ""
    pull: str = "missing"
    wait: str | None = None
    start: str | None = None
    timings: bool = False


def machine_request(options: RunOptions, *, image: dict[str, Any]) -> dict[str, Any]:
    """The CreateMachineRequest; what was not given is left out. Raises BadParameter."""
    ports = [parse_port(text) for text in options.publish]
    if options.publish_all:
        taken = {(port["guest_port"], port["protocol"]) for port in ports}
        exposed = [exposed_port(text) for text in image.get("config", {}).get("exposed_ports", [])]
        ports += [port for port in exposed if (port["guest_port"], port["protocol"]) not in taken]
    request = {
        "image": image["id"],
        "name": options.name,
        "command": list(options.command),
        "entrypoint": None if options.entrypoint is None else [options.entrypoint],
        "env": parse_environment(options.env, files=options.env_file, own=os.environ),
        "working_dir": options.workdir,
        "user": options.user,
        "hostname": options.hostname,
        "memory_mib": memory_mib(options.memory) if options.memory else None,
        "vcpus": vcpus(options.cpus) if options.cpus else None,
        "ports": ports,
        # In the foreground it is deleted from here, once its output and its exit code have been read.
        "auto_remove": options.remove and options.detach,
        "wait": options.wait,
        "start": options.start,
    }
    return {name: value for name, value in request.items() if value}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--detach", "-d", is_flag=True, help="Return when it runs, and print its id.")
@click.option("--name", default="", help="Default: two words.")
@click.option("--publish", "-p", multiple=True, metavar="[[ADDR:]HOST:]GUEST[/udp]", help="Publish a port on the host.")
@click.option("--publish-all", "-P", is_flag=True, help="Publish every exposed port on any free port.")
@click.option("--env", "-e", multiple=True, metavar="NAME[=VALUE]", help="Set, or pass on, an environment variable.")
@click.option("--env-file", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--workdir", "-w", default="", help="Working directory of the command.")
@click.option("--user", "-u", default="", help="Name or number, with an optional group.")
@click.option("--memory", "-m", help="512m, 1g; default 256m.")
@click.option("--cpus", help="Default 1.")
@click.option("--entrypoint", help='Replaces the image\'s; "" drops it.')
@click.option("--rm", "remove", is_flag=True, help="Delete the machine when it has ended.")
@click.option("--hostname", "-h", default="", help="Default: the first characters of its id.")
@click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing", show_default=True)
@click.option("--wait", type=click.Choice(["created", "running", "listening"]), help="Default: running.")
@click.option(
    "--start",
    type=click.Choice(["ready", "template", "cold"]),
    help="The fastest kind of start to take. Default: ready, a snapshot of the running service, where that fits.",
)
@click.option("--timings", is_flag=True, help="Show how long each phase of the start took; with -d it always is.")
@click.argument("image")
@click.argument("command", nargs=-1)
@with_output
def run(output: Output, /, **given: Any) -> None:
    """Run an image as a machine; one that is absent is pulled.

    In the foreground its output is printed, Ctrl-C stops it, and its exit code is passed on.
    """
    from uhm.client import connect  # noqa: PLC0415 - heavy

    options = RunOptions(**given)
    machine_request(options, image={"id": options.image})  # wrong usage is told before anything is pulled
    client = connect()
    image = _image(client, output, options)
    request = machine_request(options, image=image)
    if options.detach:
        show_started(output, client.create("/api/v1/machines", request), timings=True)
        return
    _foreground(client, output, options, request=request)


def _image(client: Client, output: Output, options: RunOptions) -> dict[str, Any]:
    """The image to run, made now where it has to be."""
    from uhm.builds import find_image, make_image  # noqa: PLC0415 - heavy
    from uhm.render.progress import LiveProgress, NoProgress  # noqa: PLC0415

    found = find_image(client, options.image) if options.pull != "always" else None
    if found is not None:
        return found
    if options.pull == "never":
        raise CommandError(f"There is no image {options.image!r}.", hint=f"`uhm pull {options.image}` makes it.")
    # Where standard error is no terminal it belongs to the workload alone.
    progress = LiveProgress(output) if output.is_live else NoProgress()
    return make_image(client, output, request={"image": options.image}, progress=progress)


def _foreground(client: Client, output: Output, options: RunOptions, *, request: dict[str, Any]) -> None:
    from uhm.workload import run_in_foreground  # noqa: PLC0415 - heavy

    ended = run_in_foreground(client, output, request=request, remove=options.remove)
    if options.timings:
        for line in waterfall(ended.machine.get("phases", [])):
            output.note(line)
    if ended.failure:
        output.note(f"uhm: {ended.failure}")
    output.document(ended.machine | {"logs": ended.logs})
    raise click.exceptions.Exit(ended.exit_code)
