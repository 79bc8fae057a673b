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
    """The stored filters of this server's users. They never change, so they are cached freely.

    Most users have the filter of their client: those that are written alike are the same object,
    which each waiting client holds.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._texts: Cache[tuple[str, str], str] = Cache("stored_filters", share=0.05)
        self._parsed: Cache[tuple[bool, str], Filter] = Cache("filters", _size, share=0.05)
        """By whether it was stored, and how it is written."""
        self.caches = (self._texts, self._parsed)

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
        found: JsonObject = json.loads(await self._text(user_id, filter_id))
        return found

    async def _text(self, user_id: str, filter_id: str) -> str:
        if not filter_id.isascii() or not filter_id.isdigit() or len(filter_id) > 18:
            raise errors.invalid_param("This is not a filter ID.")
        text = await self._db.query(filters.get, user_id, int(filter_id))
        if text is None:
            raise errors.not_found("There is no such filter.")
        return text

    async def _known_text(self, user_id: str, filter_id: str) -> str:
        key = (user_id, filter_id)
        text = self._texts.get(key)
        if text is None:
            try:
                text = self._texts[key] = await self._text(user_id, filter_id)
            except errors.MatrixError as problem:
                raise errors.invalid_param(f"`filter`: {problem.error}")
        return text

    async def parse(self, user_id: str, parameter: str | None) -> Filter:
        """The filter that the `filter` parameter of an endpoint gives: an ID, or JSON itself.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM`, `M_BAD_JSON` for anything else.
        """
        if not parameter:
            return NO_FILTER
        is_stored = not parameter.lstrip().startswith("{")
        text = await self._known_text(user_id, parameter) if is_stored else parameter
        # JSON means the same whoever sends it.
        key = (is_stored, text)
        known = self._parsed.get(key)
        if known is None:
            known = _stored(text) if is_stored else _parsed(text)
            if is_stored or len(text) <= MAX_CACHED:
                self._parsed[key] = known
        return known


def _size(key: tuple[bool, str], parsed: Filter) -> int:
    # Weighed once for each that clients use, and some are large.
    return weigh(key) + weigh(parsed)


def _stored(text: str) -> Filter:
    try:
        return parse_filter(json.loads(text))
    except errors.MatrixError as problem:
        raise errors.invalid_param(f"`filter`: {problem.error}")


def _parsed(text: str) -> Filter:
    try:
        return parse_filter(canonical.parse(text))
    except canonical.NotJSON:
        raise errors.invalid_param("`filter` is neither a filter ID nor JSON.")
