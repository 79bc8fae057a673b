"""Delegation by `/.well-known/matrix/server`, and for how long to believe it.

Rules (Server-Server API, "Resolving server names", step 3):
- an answer counts for as long as its `Cache-Control` or `Expires` header says, 24 hours without
  one, 48 hours at most (and five minutes at least, so that no server can make every request
  ask again);
- a failure counts for a minute at first, twice as long each further time, one hour at most;
- where asking again fails without an answer (no connection, or status 5xx), what was
  last delegated still counts, until 48 hours after it was said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import structlog
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import BadAnswer, RemoteError
from federation.client.shared import SharedLookups
from homeserver.cache import Cache
from homeserver.core import canonical
from homeserver.core.ids import InvalidIdentifier, ServerName

DEFAULT_LIFETIME_S = 24 * 3600
MAX_LIFETIME_S = 48 * 3600
MIN_LIFETIME_S = 5 * 60
FIRST_FAILURE_S = 60
MAX_FAILURE_S = 3600
MAX_BYTES = 50 * 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WellKnownAnswer:
    """The answer that redirects led to; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What is believed of a host: times in seconds, `delegated` None for no delegation."""

    delegated: ServerName | None
    valid_until: float
    said_at: float
    failures: int = 0


class WellKnown:
    """Asks hosts for their delegation, and remembers the answers."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[WellKnownAnswer]],
        clock: IReactorTime,
        name: str = "well_known",
    ) -> None:
        """`fetch` asks a host, following redirects, and raises `RemoteError`; `name` is the
        cache's."""
        self._fetch = fetch
        self._clock = clock
        self._shared: SharedLookups[ServerName | None] = SharedLookups()
        self._entries: Cache[str, Entry] = Cache(name, share=0.05)
        self.caches = (self._entries,)

    async def delegated(self, host: str) -> ServerName | None:
        """The server name that `host` delegates to, None if it does not. Raises nothing."""
        host = host.lower()
        entry = self._entries.get(host)
        if entry is not None and self._clock.seconds() < entry.valid_until:
            return entry.delegated
        return await self._shared.get(host, lambda: self._ask(host))

    async def _ask(self, host: str) -> ServerName | None:
        answer: WellKnownAnswer | None
        try:
            answer = await self._fetch(host)
        except BadAnswer as error:
            # It answered, if badly: no reason to keep to what it said before.
            _log.debug("no delegation", host=host, reason=str(error))
            answer = WellKnownAnswer(0, {}, b"")
        except RemoteError as error:
            _log.debug("no delegation", host=host, reason=str(error))
            answer = None
        entry = judge(answer, self._entries.get(host), self._clock.seconds())
        self._entries[host] = entry
        return entry.delegated


def judge(answer: WellKnownAnswer | None, before: Entry | None, now: float) -> Entry:
    """What to believe after asking. `answer` is None when none came; `now` is in seconds."""
    delegated = None if answer is None else parse(answer)
    if answer is not None and delegated is not None:
        lifetime = lifetime_s(answer.headers, now)
        lifetime = DEFAULT_LIFETIME_S if lifetime is None else lifetime
        lifetime = min(max(lifetime, MIN_LIFETIME_S), MAX_LIFETIME_S)
        return Entry(delegated, now + lifetime, now)
    failures = 1 if before is None else before.failures + 1
    wait = float(min(FIRST_FAILURE_S << min(failures - 1, 10), MAX_FAILURE_S))
    if answer is not None:
        # The server may ask to be left alone for longer, within the hour.
        wait = max(wait, min(lifetime_s(answer.headers, now) or 0.0, MAX_FAILURE_S))
    silent = answer is None or answer.status >= 500
    if silent and before is not None and before.delegated is not None:
        end = before.said_at + MAX_LIFETIME_S
        if now < end:
            return Entry(before.delegated, min(now + wait, end), before.said_at, failures)
    return Entry(None, now + wait, now, failures)


def parse(answer: WellKnownAnswer) -> ServerName | None:
    """The `m.server` of a valid answer, None of any other."""
    if answer.status != 200:
        return None
    try:
        server = canonical.parse_object(answer.body).get("m.server")
        return ServerName.parse(server) if isinstance(server, str) else None
    except (canonical.NotJSON, InvalidIdentifier):
        return None


def lifetime_s(headers: Mapping[str, str], now: float) -> float | None:
    """For how many seconds an answer may be kept, None if it does not say (RFC 9111)."""
    directives = {}
    for part in headers.get("cache-control", "").split(","):
        name, _, value = part.strip().partition("=")
        directives[name.lower()] = value.strip('" ')
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    seconds = _number(directives.get("max-age"))
    if seconds is not None:
        return max(0.0, seconds - (_number(headers.get("age")) or 0))
    if "expires" not in headers:
        return None
    expires = _date(headers["expires"])
    # An invalid date, such as "0", means that it expired already.
    return 0.0 if expires is None else max(0.0, expires - (_date(headers.get("date")) or now))


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    return int(text[:10])


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
