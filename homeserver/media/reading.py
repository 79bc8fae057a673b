"""Reading a file so that what is wrong with it shows before an answer has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homeserver.core.errors import not_found, unavailable
from homeserver.media.store import FileMissing, Store, StoreError


async def opened(store: Store, name: str, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of a file from `start` up to and without `end`, the first of them read already.

    Raises MatrixError: 404 if the store has lost the file, 503 if it does not work.
    """
    chunks = store.read(name, start, end)
    try:
        first = await anext(chunks, b"")
    except FileMissing as error:
        raise not_found("The file is lost.") from error
    except StoreError as error:
        raise unavailable() from error
    return _Opened(first, chunks)


async def addressed(
    store: Store, name: str, content_type: str, disposition: str, seconds: int
) -> str | None:
    """As `Store.address`. Raises MatrixError (503) if the store does not work."""
    try:
        return await store.address(name, content_type, disposition, seconds)
    except StoreError as error:
        raise unavailable() from error


class _Opened:
    """The first bytes and the rest; `aclose` lets go of the file also if nothing was read."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> _Opened:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        return await anext(self._rest) if first is None else first

    async def aclose(self) -> None:
        await self._rest.aclose()  # type: ignore[attr-defined]
