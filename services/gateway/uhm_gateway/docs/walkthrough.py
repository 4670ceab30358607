"""From nothing to a served page, as commands: what the documentation shows, and what a test runs as it is shown."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WALKTHROUGH_SERVICES", "Step", "walkthrough"]

WALKTHROUGH_SERVICES = frozenset(
    ("uhmalguhm.auth.v1.AuthService", "uhmalguhm.builder.v1.ImageService", "uhmalguhm.machines.v1.MachineService")
)
"""The commands call these, so they are shown only where all of them are served."""
_CREDENTIALS = '{"username": "ada", "password": "correct horse battery staple"}'
_BEARER = '-H "Authorization: Bearer $TOKEN"'
_TAKEN_OUT = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command for a POSIX shell, and what it is for."""

    title: str
    about: str
    command: str


def walkthrough(base: str, *, port: int = 8080) -> tuple[Step, ...]:
    """The steps against the gateway at `base`; the page is served on `port` of the machine that runs it."""
    api = f"{base}/api/v1"
    machine = f'{{"image": "nginx:latest", "name": "web", "ports": [{{"host_port": {port}, "guest_port": 80}}]}}'
    listening = machine.removesuffix("}") + ', "wait": "listening"}'
    return (
        Step(
            title="Register",
            about="The first user is an administrator.",
            command=f"curl {api}/user/create -d '{_CREDENTIALS}'",
        ),
        Step(
            title="Get a token",
            about="Everything else asks for it; this keeps it in the shell.",
            command=f"export TOKEN=$(curl -s {api}/token/issue -d '{_CREDENTIALS}' | {_TAKEN_OUT})",
        ),
        Step(
            title="Make an image of nginx",
            about="The answer comes at once, the work goes on.",
            command=f"""curl {api}/container/create {_BEARER} -d '{{"image": "nginx", "tag": "latest"}}'""",
        ),
        Step(
            title="Watch it",
            about="Every change is a line, until the image is ready. Its id would do as well as its name.",
            command=f"curl -N {api}/images/nginx:latest:watch {_BEARER}",
        ),
        Step(
            title="Run it as a virtual machine",
            about=f"Port {port} leads to the machine's port 80. The answer says how long each phase of the start took.",
            command=f"curl {api}/machines {_BEARER} -d '{listening}'",
        ),
        Step(title="There is the page", about="", command=f"curl http://127.0.0.1:{port}/"),
        Step(
            title="Stop the machine",
            about="With the signal that the image asks for.",
            command=f"curl -X POST {api}/machines/web:stop {_BEARER}",
        ),
        Step(
            title="Delete both",
            about="First the machine, then the image.",
            command=f"curl -X DELETE {api}/machines/web {_BEARER}\ncurl -X DELETE {api}/images/nginx:latest {_BEARER}",
        ),
    )
