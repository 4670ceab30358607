"""The comments of a .proto file, by the full name of what they describe.

Read from FileDescriptorProto.source_code_info, whose paths are sequences of field numbers and indexes of
descriptor.proto (https://protobuf.com/docs/descriptors#source-code-info).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

__all__ = ["comments_of"]

PACKAGE, MESSAGE, ENUM, SERVICE = (2,), 4, 5, 6
FIELD, NESTED, NESTED_ENUM = 2, 3, 4
ENUM_VALUE = 2
METHOD = 2


def comments_of(file: FileDescriptorProto) -> Mapping[str, str]:
    """The leading comments, else the trailing ones, without their indent; the package's are under its name."""
    written = {
        tuple(location.path): _dedent(location.leading_comments or location.trailing_comments)
        for location in file.source_code_info.location
        if location.leading_comments or location.trailing_comments
    }
    return {name: written[path] for path, name in _names(file) if path in written}


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    prefix = f"{file.package}." if file.package else ""
    yield PACKAGE, file.package
    for at, service in enumerate(file.service):
        name = prefix + service.name
        yield (SERVICE, at), name
        yield from (((SERVICE, at, METHOD, to), f"{name}.{method.name}") for to, method in enumerate(service.method))
    for at, enum in enumerate(file.enum_type):
        yield (ENUM, at), prefix + enum.name
        yield from (((ENUM, at, ENUM_VALUE, to), f"{prefix}{value.name}") for to, value in enumerate(enum.value))
    yield from _message_names(file.message_type, path=(MESSAGE,), prefix=prefix)


def _message_names(
    messages: Sequence[DescriptorProto], *, path: tuple[int, ...], prefix: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    for at, message in enumerate(messages):
        here, name = (*path, at), prefix + message.name
        yield here, name
        yield from (((*here, FIELD, to), f"{name}.{field.name}") for to, field in enumerate(message.field))
        yield from (((*here, NESTED_ENUM, to), f"{name}.{enum.name}") for to, enum in enumerate(message.enum_type))
        yield from _message_names(message.nested_type, path=(*here, NESTED), prefix=f"{name}.")


def _dedent(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.rstrip().split("\n"))
