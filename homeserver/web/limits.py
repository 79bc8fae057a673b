"""Rate limits: the interface that the router asks, and token buckets in memory.

Client-server API, "Rate limiting". One bucket for each class and user, or class and server for
requests of servers, or class and network address where neither is known.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import fields
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from config.model import Rate, RateLimits
from homeserver.core import rate_limit
from homeserver.core.errors import limit_exceeded
from homeserver.web.request import Request, Requester

MAX_BUCKETS = 100_000


class RateLimiter(Protocol):
    """Says whether a request may be made now."""

    @property
    def classes(self) -> Collection[str]:
        """The names that `rate` of an endpoint may have."""

    async def check(
        self,
        requester: Requester | None,
        request: Request,
        rate_class: str,
        origin: str | None = None,
    ) -> None:
        """Raise MatrixError (429 M_LIMIT_EXCEEDED) if the request comes too early.

        `origin`: the server that signed the request.
        """

    async def spend(self, rate_class: str, key: str) -> None:
        """Count something else that is limited, e.g. the passwords tried for a user.

        Raises MatrixError (429 M_LIMIT_EXCEEDED), KeyError for an unknown class.
        """


class MemoryRateLimiter:
    """Token buckets of this process. Beyond `max_buckets` the longest unused are forgotten."""

    def __init__(
        self, limits: RateLimits, clock: IReactorTime, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._enabled = limits.enabled
        self._exempt = frozenset(limits.exempt_users)
        self._rates: dict[str, Rate] = {
            field.name: rate
            for field in fields(limits)
            if isinstance(rate := getattr(limits, field.name), Rate)
        }
        self._clock = clock
        self._max_buckets = max_buckets
        # (class, key) -> (tokens, time in ms, rate), the longest unused first
        self._buckets: OrderedDict[tuple[str, str], tuple[float, int, Rate]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    @property
    def classes(self) -> Collection[str]:
        return self._rates.keys()

    async def check(
        self,
        requester: Requester | None,
        request: Request,
        rate_class: str,
        origin: str | None = None,
    ) -> None:
        """See `RateLimiter.check`. Exempt users, and requesters with `is_rate_limited` false, are
        let through."""
        key = limited_key(requester, request, origin, self._exempt)
        if key is not None:
            own = own_rate(requester, rate_class, self._rates[rate_class])
            self.take(rate_class, key, rate=own)

    async def spend(self, rate_class: str, key: str) -> None:
        """See `RateLimiter.spend`."""
        self.take(rate_class, key)

    def take(self, rate_class: str, key: str, cost: float = 1.0, rate: Rate | None = None) -> None:
        """Take `cost` tokens from the bucket of `key`, e.g. a user that somebody logs in as.

        `rate`: in place of that of the class. Raises MatrixError (429 M_LIMIT_EXCEEDED),
        KeyError for an unknown class.
        """
        rate = rate or self._rates[rate_class]
        if not self._enabled:
            return
        now_ms = int(self._clock.seconds() * 1000)
        bucket = (rate_class, key)
        known = self._buckets.get(bucket)
        level, last_ms = (float(rate.burst), now_ms) if known is None else known[:2]
        allowed, level, last_ms, retry_after_ms = rate_limit.take(
            level, last_ms, now_ms, rate.per_second, rate.burst, cost
        )
        self._buckets[bucket] = (level, last_ms, rate)
        if known is not None:
            self._buckets.move_to_end(bucket)
        self._forget(now_ms)
        if not allowed:
            raise limit_exceeded(retry_after_ms)

    def _forget(self, now_ms: int) -> None:
        # Two for each one that may have been added: memory shrinks again after a flood.
        for _ in range(2):
            bucket, (level, last_ms, rate) = next(iter(self._buckets.items()))
            full = rate_limit.full_at_ms(level, last_ms, rate.per_second, rate.burst)
            is_full = full is not None and full <= now_ms and len(self._buckets) > 1
            if not is_full and len(self._buckets) <= self._max_buckets:
                return
            del self._buckets[bucket]


def limited_key(
    requester: Requester | None, request: Request, origin: str | None, exempt: Collection[str]
) -> str | None:
    """Whose bucket a request is taken from; None for those without limits."""
    if origin is not None:
        return origin
    if requester is None:
        return address_key(request.remote_address)
    if not requester.is_rate_limited or requester.user_id in exempt:
        return None
    return requester.user_id


def own_rate(requester: Requester | None, rate_class: str, usual: Rate) -> Rate:
    """The rate for a requester whose limit an administrator set, else the `usual` one.

    It takes the place of the limit for messages. Other limits are only raised by it: whoever may
    send ten messages a minute reads and writes as everybody does.
    """
    if requester is None or requester.rate is None:
        return usual
    per_second, burst = requester.rate
    if rate_class == "message":
        return Rate(per_second=per_second, burst=max(burst, 1))
    return Rate(per_second=max(per_second, usual.per_second), burst=max(burst, usual.burst))


def address_key(address: str) -> str:
    """The address as a key of limits; of IPv6 its /64, since hosts choose freely within it."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
