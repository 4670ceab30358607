"""`python -m uhm_gateway`: serves an annotated API as REST and gRPC."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from uhm_common.bootstrap import main as run_service
from uhm_gateway.app import serve
from uhm_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line over the environment, and serves."""
    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    if "routes" in given:
        given["routes"] = dict(given["routes"])
    settings = cast("type[GatewaySettings]", partial(GatewaySettings, **given))
    run_service("gateway", settings, serve)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uhm_gateway",
        description="Serves an API with google.api.http annotations as REST, and forwards its gRPC.",
    )
    add: Any = parser.add_argument
    add(
        "--descriptor-set",
        type=Path,
        metavar="FILE",
        help="a FileDescriptorSet with imports; default: this project's API",
    )
    add(
        "--route",
        type=_route,
        action="append",
        dest="routes",
        metavar="PACKAGE.SERVICE=HOST:PORT",
        help="where a service is; may be given more than once",
    )
    add(
        "--allow-metadata",
        action="append",
        dest="allowed_metadata",
        metavar="KEY",
        help="a key that clients may set as Grpc-Metadata-KEY, or the beginning of one with a * after it",
    )
    add("--rest-port", type=int, metavar="N", help="default 5000; 0 for any")
    add("--grpc-port", type=int, metavar="N", help="default 50051; 0 for any")
    add("--host", help="address to listen on; default 127.0.0.1")
    return parser


def _route(text: str) -> tuple[str, str]:
    service, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not service or not host or not port.isdecimal():
        message = f"{text!r} is not PACKAGE.SERVICE=HOST:PORT"
        raise argparse.ArgumentTypeError(message)
    return service, address


if __name__ == "__main__":
    main()
