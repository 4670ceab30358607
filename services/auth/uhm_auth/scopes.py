"""The scopes that there are: those that a method's option `uhmalguhm.access.v1.access` names, in any service."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from uhmalguhm.access.v1 import access_pb2

__all__ = ["all_scopes"]


@cache
def all_scopes() -> dict[str, bool]:
    """Every scope, by name, and whether it is of use to administrators only."""
    described = FileDescriptorSet.FromString(files("uhmalguhm").joinpath("descriptors.binpb").read_bytes())
    found: dict[str, bool] = {}
    for file in described.file:
        for method in (method for service in file.service for method in service.method):
            access = method.options.Extensions[access_pb2.access]
            if access.scope:
                found[access.scope] = found.get(access.scope, True) and access.admin
    return dict(sorted(found.items()))
