"""Files in a bucket of Amazon S3 or of a server that speaks its protocol.

A file is sent in one request, so that it is there whole or not at all. The client library blocks,
and so works in threads; what it reads is passed on in chunks.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from config.model import S3
from homeserver.media.spool import Spool
from homeserver.media.store import FileMissing, StoredFile, StoreError, putter
from homeserver.media.threads import FileThreads

CHUNK = 256 * 1024
"""Bytes that are read at a time."""

_CONNECT_S = 10
_READ_S = 60
_ATTEMPTS = 3


class MissingLibrary(Exception):
    """The package that speaks S3 is not installed."""


class S3Store:
    """A `Store` in a bucket. Any number of machines may use it."""

    def __init__(self, config: S3, threads: FileThreads, spool: Spool) -> None:
        """Raises MissingLibrary."""
        self._bucket = config.bucket
        self._prefix = config.prefix
        self._redirect = config.redirect
        self._threads = threads
        self._spool = spool
        self._client = _client(config)

    async def put(self, path: Path, name: str, size: int) -> None:
        await self._threads.run(self._put, path, name, size)

    def _put(self, path: Path, name: str, size: int) -> None:
        with _translated(name), path.open("rb") as file:
            self._client.put_object(**self._key(name), Body=file, ContentLength=size)
        path.unlink(missing_ok=True)

    async def read(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        body = await self._threads.run(self._open, name, start, end)
        try:
            left = end - start
            while True:
                data = await self._threads.run(body.read, min(CHUNK, left))
                if not data and left:
                    raise StoreError(f"The file {name} is shorter than it was.")
                yield data
                left -= len(data)
                if not left:
                    return
        finally:
            self._threads.begin(body.close).addErrback(lambda _: None)

    def _open(self, name: str, start: int, end: int) -> _Body:
        # There is no range of no bytes.
        part = {} if end <= start else {"Range": f"bytes={start}-{end - 1}"}
        with _translated(name):
            return _Body(name, self._client.get_object(**self._key(name), **part)["Body"])

    async def exists(self, name: str, size: int) -> bool:
        try:
            return await self._threads.run(self._size, name) == size
        except FileMissing:
            return False

    def _size(self, name: str) -> int:
        with _translated(name):
            return int(self._client.head_object(**self._key(name))["ContentLength"])

    @asynccontextmanager
    async def local(self, name: str) -> AsyncIterator[Path]:
        path = self._spool.new_path()
        try:
            await self._threads.run(self._fetch, name, path)
            yield path
        finally:
            self._spool.remove(path)

    def _fetch(self, name: str, path: Path) -> None:
        body = self._open(name, 0, 0)
        try:
            with _translated(name), path.open("wb") as file:
                while data := body.read(CHUNK):
                    file.write(data)
        finally:
            body.close()

    async def delete(self, name: str) -> None:
        await self._threads.run(self._delete, name)

    def _delete(self, name: str) -> None:
        with _translated(name):
            self._client.delete_object(**self._key(name))

    async def files(self) -> AsyncIterator[list[StoredFile]]:
        token: str | None = None
        while True:
            found, token = await self._threads.run(self._list, token)
            if found:
                yield found
            if token is None:
                return

    def _list(self, token: str | None) -> tuple[list[StoredFile], str | None]:
        more = {} if token is None else {"ContinuationToken": token}
        with _translated(""):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **more)
        found = []
        for entry in answer.get("Contents", ()):
            name = entry["Key"][len(self._prefix) :].rpartition("/")[2]
            if putter(name) is not None:
                written = int(entry["LastModified"].timestamp() * 1000)
                found.append(StoredFile(name, int(entry["Size"]), written))
        return found, answer.get("NextContinuationToken")

    async def address(
        self, name: str, content_type: str, disposition: str, seconds: int
    ) -> str | None:
        if not self._redirect:
            return None
        return await self._threads.run(self._sign, name, content_type, disposition, seconds)

    def _sign(self, name: str, content_type: str, disposition: str, seconds: int) -> str:
        with _translated(name):
            return str(
                self._client.generate_presigned_url(
                    "get_object",
                    Params={
                        **self._key(name),
                        "ResponseContentType": content_type,
                        "ResponseContentDisposition": disposition,
                    },
                    ExpiresIn=seconds,
                )
            )

    def _key(self, name: str) -> dict[str, str]:
        if putter(name) is None:
            raise FileMissing(name)
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name[:2]}/{name}"}


class _Body:
    """What a bucket sends; closed when the thread that reads from it is done."""

    def __init__(self, name: str, stream: Any) -> None:
        self._name = name
        self._stream = stream
        self._lock = threading.Lock()

    def read(self, length: int) -> bytes:
        with self._lock, _translated(self._name):
            data: bytes = self._stream.read(length)
            return data

    def close(self) -> None:
        with self._lock:
            self._stream.close()


class _translated:
    """Makes `StoreError` of what the library raises."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, StoreError) or not isinstance(error, Exception):
            return
        answer: Any = getattr(error, "response", None)
        status = answer["ResponseMetadata"]["HTTPStatusCode"] if answer else None
        code = answer.get("Error", {}).get("Code") if answer else None
        if status == 404 and code != "NoSuchBucket":
            raise FileMissing(self._name) from error
        raise StoreError(f"The bucket does not work: {error}") from error


def _client(config: S3) -> Any:
    try:
        import boto3
        from botocore.config import Config as BotoConfig
    except ImportError:
        raise MissingLibrary from None
    return boto3.session.Session().client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region,
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        config=BotoConfig(
            signature_version="s3v4",
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"max_attempts": _ATTEMPTS, "mode": "standard"},
            max_pool_connections=16,
            s3={"addressing_style": "path" if config.endpoint_url else "auto"},
            # Not every server that speaks the protocol knows the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
