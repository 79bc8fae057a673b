"""Filters that clients store and name (client-server API, "Filtering")."""

from __future__ import annotations

import json

from homeserver.cache import Cache, weigh
from homeserver.core import canonical, errors
from homeserver.core.filters import NO_FILTER, Filter, parse_filter
from homeserver.core.types import JsonObject
from storage import filters
from storage.database import Database

MAX_BYTES = 64 * 1024
MAX_CACHED = 4096
"""Characters of a filter in a request that is not parsed again the next time."""


class Filters:
    """The stored filters of this server's users. They never change, so they are cached freely."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cache: Cache[tuple[str, str], Filter] = Cache("filters", _size, share=0.05)
        self.caches = (self._cache,)

    async def add(self, user_id: str, source: JsonObject) -> str:
        """Store a filter; its ID. Raises MatrixError 400 for a malformed one."""
        parse_filter(source)
        text = canonical.encode_plain(source).decode()
        if len(text.encode()) > MAX_BYTES:
            raise errors.too_large("The filter is larger than 64 KiB.")
        return str(await self._db.write(filters.add, user_id, text))

    async def get(self, user_id: str, filter_id: str) -> JsonObject:
        """A filter as it was stored.

        Raises:
            MatrixError: 404 `M_NOT_FOUND`; 400 `M_INVALID_PARAM` for what is no filter ID.
        """
        if not filter_id.isascii() or not filter_id.isdigit() or len(filter_id) > 18:
            raise errors.invalid_param("This is not a filter ID.")
        text = await self._db.query(filters.get, user_id, int(filter_id))
        if text is None:
            raise errors.not_found("There is no such filter.")
        found: JsonObject = json.loads(text)
        return found

    async def parse(self, user_id: str, parameter: str | None) -> Filter:
        """The filter that the `filter` parameter of an endpoint gives: an ID, or JSON itself.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM`, `M_BAD_JSON` for anything else.
        """
        if not parameter:
            return NO_FILTER
        is_json = parameter.lstrip().startswith("{")
        # JSON means the same whoever sends it.
        key = ("" if is_json else user_id, parameter)
        known = self._cache.get(key)
        if known is None:
            known = _parsed(parameter) if is_json else await self._stored(user_id, parameter)
            if len(parameter) <= MAX_CACHED:
                self._cache[key] = known
        return known

    async def _stored(self, user_id: str, filter_id: str) -> Filter:
        try:
            return parse_filter(await self.get(user_id, filter_id))
        except errors.MatrixError as problem:
            raise errors.invalid_param(f"`filter`: {problem.error}")


def _size(key: tuple[str, str], parsed: Filter) -> int:
    # Weighed once for each that a client uses, and some are large.
    return weigh(key) + weigh(parsed)


def _parsed(text: str) -> Filter:
    try:
        return parse_filter(canonical.parse(text))
    except canonical.NotJSON:
        raise errors.invalid_param("`filter` is neither a filter ID nor JSON.")
