"""The gRPC face of API keys: messages to the domain and back, nothing else."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from uhm_common.callers.identity import current_identity
from uhm_common.paging import page_size
from uhmalguhm.auth.v1 import api_key_pb2, api_key_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from uhm_auth.api_keys import ApiKeys
    from uhm_auth.stores.api_keys import ApiKey

__all__ = ["SERVICE_NAME", "ApiKeyServicer"]

SERVICE_NAME: str = api_key_pb2.DESCRIPTOR.services_by_name["ApiKeyService"].full_name


class ApiKeyServicer(api_key_pb2_grpc.ApiKeyServiceServicer):
    """Implements uhmalguhm.auth.v1.ApiKeyService."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def CreateApiKey(
        self, request: api_key_pb2.CreateApiKeyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> api_key_pb2.CreateApiKeyResponse:
        """Makes a key."""
        made = await self._keys.create(
            current_identity(),
            name=request.name,
            scopes=request.scopes,
            ttl=request.ttl.seconds if request.HasField("ttl") else None,
        )
        return api_key_pb2.CreateApiKeyResponse(api_key=_message(made.key), key=made.text)

    async def ListApiKeys(
        self, request: api_key_pb2.ListApiKeysRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> api_key_pb2.ListApiKeysResponse:
        """The caller's keys."""
        size = page_size(request.page_size)
        keys, next_token = await self._keys.page(current_identity(), size=size, token=request.page_token)
        return api_key_pb2.ListApiKeysResponse(api_keys=[_message(key) for key in keys], next_page_token=next_token)

    async def DeleteApiKey(
        self, request: api_key_pb2.DeleteApiKeyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> api_key_pb2.DeleteApiKeyResponse:
        """Ends a key."""
        await self._keys.delete(current_identity(), request.id)
        return api_key_pb2.DeleteApiKeyResponse()


def _message(key: ApiKey) -> api_key_pb2.ApiKey:
    return api_key_pb2.ApiKey(
        id=key.id,
        name=key.name,
        scopes=key.scopes,
        create_time=Timestamp(seconds=key.created_at),
        use_time=None if key.used_at is None else Timestamp(seconds=key.used_at),
        expire_time=None if key.expires_at is None else Timestamp(seconds=key.expires_at),
    )
