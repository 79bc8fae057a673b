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
    return _joined(first, chunks)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for data in rest:
            yield data
    finally:
        await rest.aclose()  # type: ignore[attr-defined]
