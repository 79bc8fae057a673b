"""Finding files for those who ask: here, soon here, or at other servers.

Client-server API, "Content repository". Nobody is told more of a file that is withheld than that
it is not there.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import structlog
from twisted.internet.defer import Deferred

from homeserver.cache import Cache
from homeserver.core import media as names
from homeserver.core.errors import MatrixError, not_found
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.media.uploads import channel
from homeserver.media.usage import Usage
from storage import media
from storage.database import Database
from storage.feed import Feed
from storage.media import Found, MediaRow
from storage.pool import Reactor

DEFAULT_WAIT_MS = 20_000
MAX_WAIT_MS = 60_000
_POLL_S = 5.0
_log = structlog.get_logger(__name__)


class Remote(Protocol):
    """Fetches files of other servers: see `homeserver.media.remote`."""

    async def fetch(self, server_name: str, media_id: str, wait_ms: int) -> Found:
        """Raises MatrixError."""


class Scanner(Protocol):
    """Looks at files before anybody gets them: see `homeserver.media.scanning`."""

    async def check(self, sha256: str, store_name: str) -> bool:
        """Whether it was looked at. Raises MatrixError for a file that nobody gets."""


class Wish(NamedTuple):
    """How a file is asked for. `wait_ms`: for one that is to come. `allow_remote`: whether other
    servers are asked. `authenticated`: by somebody who may have what needs an access token."""

    wait_ms: int = DEFAULT_WAIT_MS
    allow_remote: bool = True
    authenticated: bool = True


ASKED = Wish()


def patience_ms(wish: Wish) -> int:
    """For how long a file is waited for: what a client asks for, within reason."""
    return max(0, min(wish.wait_ms, MAX_WAIT_MS))


class Downloads:
    """Finds files. All methods raise MatrixError."""

    remote: Remote | None = None
    scanner: Scanner | None = None

    def __init__(
        self,
        db: Database,
        feed: Feed,
        reactor: Reactor,
        usage: Usage,
        server_name: str,
        *,
        frozen: bool,
    ) -> None:
        """`frozen`: new files are not given to those without an access token."""
        self._db = db
        self._feed = feed
        self._reactor = reactor
        self._usage = usage
        self._server_name = server_name
        self._frozen = frozen
        self._cache: Cache[tuple[str, str], Found] = Cache("media_names", share=0.1)
        self.caches = (self._cache,)
        self._generation = 0
        feed.on_invalidate(media.CACHE, self._changed, self._all_changed)

    async def find(self, server_name: str, media_id: str, wish: Wish = ASKED) -> Found:
        """The file of a name, ready to be read.

        400 for what is no server's name; 404 for what is not there or withheld; 504 for what is
        not there yet; what the other server or the scanner says.
        """
        if not names.is_media_id(media_id):
            raise not_found("There is no such file.")
        found = await self.lookup(server_name, media_id, wish)
        row = found.row
        if found.blocked or row.quarantined_by is not None:
            raise not_found("This file is withheld.")
        if row.authenticated and not wish.authenticated:
            raise not_found("This file is only given to those who are logged in.")
        if self.scanner is not None and not found.is_clean:
            assert row.sha256 is not None and found.store_name is not None
            generation = self._generation
            if await self.scanner.check(row.sha256, found.store_name):
                found = found._replace(is_clean=True)
                self._remember(found, generation)
        self._usage.seen(server_name, media_id)
        return found

    async def lookup(self, server_name: str, media_id: str, wish: Wish) -> Found:
        """The file of a name, withheld or not."""
        cached = self._cache.get((server_name, media_id))
        if cached is not None:
            return cached
        generation = self._generation
        found = await self._db.query(media.find, server_name, media_id)
        if found is None:
            if server_name == self._server_name:
                raise not_found("There is no such file.")
            return await self._fetch(server_name, media_id, wish)
        if found.store_name is None:
            found = await self._awaited(found.row, patience_ms(wish))
        self._remember(found, generation)
        return found

    async def _fetch(self, server_name: str, media_id: str, wish: Wish) -> Found:
        try:
            ServerName.parse(server_name)
        except InvalidIdentifier as error:
            raise MatrixError(400, "M_INVALID_PARAM", f"serverName: {error}") from error
        # What is fetched now would not be given to those without an access token anyway.
        is_frozen = self._frozen and not wish.authenticated
        if self.remote is None or is_frozen or not wish.allow_remote:
            raise not_found("There is no such file here.")
        return await self.remote.fetch(server_name, media_id, patience_ms(wish))

    async def _awaited(self, row: MediaRow, wait_ms: int) -> Found:
        """The file of a reserved name once it has come."""
        until = self._reactor.seconds() + wait_ms / 1000
        while True:
            hint = _Hint()
            # Subscribed before looking: no hint falls between looking and waiting.
            unsubscribe = self._feed.subscribe(channel(row.media_id), hint.give)
            try:
                found = await self._db.query(media.find, row.server_name, row.media_id)
                now = self._reactor.seconds()
                if found is None or _is_expired(found.row, now):
                    raise not_found("There is no such file.")
                if found.store_name is not None:
                    return found
                if now >= until:
                    raise _not_yet()
                timer = self._reactor.callLater(min(until - now, _POLL_S), hint.give)
                try:
                    await hint.given
                finally:
                    if timer.active():
                        timer.cancel()
            finally:
                unsubscribe()

    def _remember(self, found: Found, generation: int) -> None:
        if generation != self._generation:
            return  # it may have changed since it was read
        self._cache[found.row.server_name, found.row.media_id] = found

    def _changed(self, key: str) -> None:
        self._generation += 1
        server_name, _, media_id = key.partition("/")
        self._cache.pop((server_name, media_id), None)

    def _all_changed(self) -> None:
        self._generation += 1
        self._cache.clear()


class _Hint:
    """Waits for the first of several things."""

    def __init__(self) -> None:
        self.given: Deferred[None] = Deferred()

    def give(self, pos: int = 0) -> None:
        if not self.given.called:
            self.given.callback(None)


def _is_expired(row: MediaRow, now_s: float) -> bool:
    return row.sha256 is None and row.expires_ts is not None and row.expires_ts <= now_s * 1000


def _not_yet() -> MatrixError:
    return MatrixError(504, "M_NOT_YET_UPLOADED", "The file has not been uploaded yet.")
