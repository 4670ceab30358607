"""What a method asks of its caller, as its option `uhmalguhm.access.v1.access` says it, where an API has that.

For the documentation only: each service enforces it itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2

from uhmalguhm.access.v1 import access_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

    from uhm_gateway.mapping.descriptors import Method

__all__ = ["permissions_of"]

OPTION = "uhmalguhm.access.v1.access"


def permissions_of(method: Method, *, pool: DescriptorPool) -> access_pb2.Access | None:
    """What the method asks, or None where it does not say.

    The number of an extension means something only where its own file is in the descriptor set.
    """
    try:
        pool.FindExtensionByName(OPTION)
    except KeyError:
        return None
    # The pool's options do not know extensions of the default pool; the same bytes read anew do.
    serialized = method.descriptor.GetOptions().SerializeToString()
    options = descriptor_pb2.MethodOptions.FromString(serialized)
    return options.Extensions[access_pb2.access] if options.HasExtension(access_pb2.access) else None
