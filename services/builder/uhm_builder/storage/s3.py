"""S3-compatible storage, through boto3 in threads.

An object above one part goes up by a multipart upload, several parts at a time, each with its MD5 for the server to
check. Its id is the token to go on with: what is there already the server lists itself (ListParts), so nothing that we
wrote down can be wrong. A server that has forgotten the upload makes it begin anew.

An object counts as held when its ETag is the MD5 that this content has (of a multipart upload: the MD5 of its parts'),
as S3 defines it; where a server makes ETags otherwise, the object is read back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from uhm_builder.errors import (
    ContentMismatch,
    InvalidStorage,
    NotAtStorage,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnreachable,
)
from uhm_builder.pieces import PIECE
from uhm_builder.storage.objects import Stored, hashed, ignore
from uhm_builder.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from uhm_builder.hosts import HostRules
    from uhm_builder.storage.content import Content
    from uhm_builder.storage.objects import Report, Resume
    from uhm_builder.storage.places import S3Place
    from uhm_common.errors import UhmError

__all__ = ["S3Store"]

PART = 8 << 20
PARTS_MAX = 10_000
PARTS_AT_ONCE = 3
DEFAULT_REGION = "us-east-1"
DENIED = frozenset(
    {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"}
)
FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "EntityTooLarge"})
MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "NotFound", "404"})
PASSING = frozenset({"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "InternalError", "ServiceUnavailable"})
BAD_CONTENT = frozenset({"BadDigest", "InvalidDigest", "InvalidPart"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    number: int
    offset: int
    length: int


class S3Store:
    """An `ObjectStore` in a bucket."""

    def __init__(self, place: S3Place, *, rules: HostRules) -> None:
        """Connects when it is first used. Raises InvalidStorage for an endpoint or region that cannot be one."""
        self._place = place
        self._prefix = f"{place.prefix.strip('/')}/" if place.prefix.strip("/") else ""
        try:
            self._client: Any = boto3.session.Session(
                aws_access_key_id=place.access_key_id,
                aws_secret_access_key=place.secret,
                region_name=place.region or DEFAULT_REGION,
            ).client("s3", endpoint_url=place.endpoint or None, config=_config(place))
        except (BotoCoreError, ValueError) as error:
            raise InvalidStorage(f"The S3 endpoint {place.endpoint!r} cannot be used: {error}.") from error
        self._client.meta.events.register("before-send.s3", partial(_check_host, rules))

    async def put(self, name: str, content: Content, *, resume: Resume, report: Report = ignore) -> None:
        """In one request where it is small, else in parts, of which those that are there are not sent again."""
        if await self._holds(name, content):
            report(content.size)
            return
        if content.size <= PART:
            body = await in_thread(partial(content.read, 0, content.size))
            await self._call("put_object", name, Body=body, ContentMD5=_md5(body).base64)
            report(content.size)
        else:
            await self._put_parts(name, content, resume=resume, report=report)
        if not await self._holds(name, content):
            await hashed(self, name, content)

    async def get(self, name: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """By GetObject, with a range where one is asked for."""
        end = "" if length is None else str(offset + length - 1)
        ranged = {"Range": f"bytes={offset}-{end}"} if offset or length is not None else {}
        body = (await self._call("get_object", name, **ranged))["Body"]
        try:
            while True:
                with _told(name, self._place):
                    piece = await in_thread(partial(body.read, PIECE))
                if not piece:
                    return
                yield piece
        finally:
            body.close()

    async def stat(self, name: str) -> Stored | None:
        """By HeadObject."""
        try:
            head = await self._call("head_object", name)
        except NotAtStorage:
            return None
        return Stored(name=name, size=head["ContentLength"], version=head["ETag"].strip('"'))

    async def listing(self, prefix: str) -> list[Stored]:
        """By ListObjectsV2."""

        def pages() -> list[Stored]:
            paginator = self._client.get_paginator("list_objects_v2")
            return [
                Stored(
                    name=entry["Key"].removeprefix(self._prefix),
                    size=entry["Size"],
                    version=entry["ETag"].strip('"'),
                )
                for page in paginator.paginate(Bucket=self._place.bucket, Prefix=self._prefix + prefix)
                for entry in page.get("Contents", ())
            ]

        with _told(prefix, self._place):
            return await in_thread(pages)

    async def delete(self, name: str) -> None:
        """By DeleteObject, which does not mind an object that is not there."""
        await self._call("delete_object", name)

    async def abandon(self, name: str, token: str) -> None:
        """By AbortMultipartUpload: parts of an upload that nobody ends are paid for."""
        with suppress(NotAtStorage):
            await self._call("abort_multipart_upload", name, UploadId=token)

    async def close(self) -> None:
        """Ends connections."""
        self._client.close()

    async def _put_parts(self, name: str, content: Content, *, resume: Resume, report: Report) -> None:
        parts = _parts(content.size)
        there = await self._parts_there(name, resume.token) if resume.token else None
        if there is None:
            there = {}
            await resume.keep((await self._call("create_multipart_upload", name))["UploadId"])
        done = 0
        etags: dict[int, str] = {}
        slots = asyncio.Semaphore(PARTS_AT_ONCE)

        async def send(part: _Part) -> None:
            nonlocal done
            async with slots:
                body = await in_thread(partial(content.read, part.offset, part.length))
                md5 = await in_thread(partial(_md5, body))
                if there.get(part.number) != md5.hex:
                    answer = await self._call(
                        "upload_part",
                        name,
                        UploadId=resume.token,
                        PartNumber=part.number,
                        Body=body,
                        ContentMD5=md5.base64,
                    )
                    etags[part.number] = answer["ETag"]
                else:
                    etags[part.number] = f'"{md5.hex}"'
                done += part.length
                report(done)

        try:
            async with asyncio.TaskGroup() as tasks:
                for part in parts:
                    tasks.create_task(send(part))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        listed = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
        await self._call("complete_multipart_upload", name, UploadId=resume.token, MultipartUpload={"Parts": listed})
        await resume.keep("")

    async def _parts_there(self, name: str, upload: str) -> dict[int, str] | None:
        """MD5s of the parts that the server has, by number; None where it knows no such upload."""

        def pages() -> dict[int, str]:
            paginator = self._client.get_paginator("list_parts")
            where = {"Bucket": self._place.bucket, "Key": self._prefix + name, "UploadId": upload}
            return {
                entry["PartNumber"]: entry["ETag"].strip('"')
                for page in paginator.paginate(**where)
                for entry in page.get("Parts", ())
            }

        try:
            with _told(name, self._place):
                return await in_thread(pages)
        except (NotAtStorage, StorageRefused):
            return None

    async def _holds(self, name: str, content: Content) -> bool:
        stored = await self.stat(name)
        if stored is None or stored.size != content.size:
            return False
        if stored.version == await in_thread(partial(_etag, content, in_parts="-" in stored.version)):
            return True
        try:
            await hashed(self, name, content)
        except ContentMismatch:
            return False
        return True

    async def _call(self, operation: str, name: str, **parameters: Any) -> Any:
        call: Callable[[], Any] = partial(
            getattr(self._client, operation), Bucket=self._place.bucket, Key=self._prefix + name, **parameters
        )
        with _told(name, self._place):
            return await in_thread(call)


@dataclass(frozen=True, slots=True)
class _Md5:
    hex: str
    base64: str


def _md5(body: bytes) -> _Md5:
    digest = hashlib.md5(body, usedforsecurity=False)
    return _Md5(digest.hexdigest(), base64.b64encode(digest.digest()).decode())


def _parts(size: int) -> list[_Part]:
    """Equal parts, as few mebibytes as the most parts that S3 takes allow."""
    length = max(PART, -(-size // PARTS_MAX // PIECE) * PIECE)
    return [
        _Part(number=number, offset=offset, length=min(length, size - offset))
        for number, offset in enumerate(range(0, size, length), start=1)
    ]


def _etag(content: Content, *, in_parts: bool) -> str:
    """The ETag that S3 gives this content, sent in our parts or in one piece."""
    if not in_parts:
        md5 = hashlib.md5(usedforsecurity=False)
        for piece in content.pieces():
            md5.update(piece)
        return md5.hexdigest()
    parts = _parts(content.size)
    together = b"".join(bytes.fromhex(_md5(content.read(part.offset, part.length)).hex) for part in parts)
    return f"{_md5(together).hex}-{len(parts)}"


def _check_host(rules: HostRules, request: Any, **_: Any) -> None:
    """Before each request, those included that a redirect causes. Raises HostDenied.

    boto3 resolves the name once more, so an answer of DNS that changes between the two can get past this.
    """
    host = urlsplit(request.url).hostname or ""
    rules.check_name(host)
    with suppress(OSError, UnicodeError):  # which the connection will meet, too
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        rules.permitted(host, [ipaddress.ip_address(address[0]) for *_, address in found])


def _config(place: S3Place) -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"} if place.endpoint else None,
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=2 * PARTS_AT_ONCE,
        request_checksum_calculation="when_required",  # servers other than Amazon's refuse the new ones
        response_checksum_validation="when_required",
    )


@contextmanager
def _told(name: str, place: S3Place) -> Iterator[None]:
    """What boto3 raises, as what it means for a location."""
    where = f"{place.endpoint or 'Amazon S3'}, bucket {place.bucket}"
    try:
        yield
    except ClientError as error:
        raise _refusal(error, name, where) from error
    except ParamValidationError as error:
        raise StorageRefused(f"{where}: {error}.") from error
    except (BotoCoreError, HTTPClientError, OSError) as error:
        raise StorageUnreachable(
            f"{where} does not answer: {error}.".replace("..", "."), hint="Check the endpoint, and that it is up."
        ) from error


def _refusal(error: ClientError, name: str, where: str) -> Exception:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    said = str(answer.get("Message") or code)[:300].rstrip(".")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    if code == "NoSuchBucket":
        return NotAtStorage(f"{where}: there is no such bucket.", hint="Make it first, or check its name.")
    if code in MISSING:
        return NotAtStorage(f"{where}: there is no {name}.")
    meanings: tuple[tuple[bool, type[UhmError], str, str], ...] = (
        (
            code in DENIED or status in (401, 403),
            StorageDenied,
            "access is denied",
            "Check the access key and its secret, and that the key may read, write, list and delete there.",
        ),
        (code in FULL or status == 507, StorageFull, "there is no room", "Make room there."),
        (code in BAD_CONTENT, ContentMismatch, f"{name} arrived damaged", "Publish again."),
        (code in PASSING or status >= 500, StorageUnreachable, f"it answered {code} ({status})", "Try again."),
    )
    for fits, kind, meaning, hint in meanings:
        if fits:
            return kind(f"{where}: {meaning}: {said}.", hint=hint)
    return StorageRefused(f"{where} answered {code} ({status}): {said}.")
