"""Rate limits that all processes keep together, in Redis.

A bucket is one hash, changed by one script: however many processes ask, what they grant together
is what one would grant. Of classes with large bursts a process takes several tokens at once and
spends them within a few seconds, so that most requests ask nobody. While Redis is away each
process limits for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import fields
from typing import Any, Protocol

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from config.model import Rate, RateLimits
from homeserver.core.errors import limit_exceeded
from homeserver.core.rate_limit import MAX_RETRY_AFTER_MS
from homeserver.in_time import in_time
from homeserver.web.limits import MemoryRateLimiter, limited_key, own_rate
from homeserver.web.request import Request, Requester

PREFIX = "hearth:limit:"
LEASE_MS = 10_000
"""For how long tokens that were taken together can be spent."""
TIMEOUT_S = 1.0
RETRY_MS = 5_000
"""For how long Redis is not asked again after it did not answer."""
_LEASED_AT_ONCE = 20
"""The part of a burst that a process takes at once."""
_MAX_LEASES = 100_000

_TAKE = f"""
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local bucket = redis.call('HMGET', KEYS[1], 'level', 'time')
local level = burst
if bucket[1] then
  local past = math.max(0, now - tonumber(bucket[2]))
  level = math.min(burst, tonumber(bucket[1]) + past * rate / 1000)
end
if level + 1e-6 < 1 then
  if rate <= 0 then return {{0, {MAX_RETRY_AFTER_MS}}} end
  return {{0, math.ceil((1 - level) / rate * 1000)}}
end
local granted = math.min(wanted, math.max(1, math.floor(level)))
level = math.max(0, level - granted)
redis.call('HSET', KEYS[1], 'level', tostring(level), 'time', tostring(now))
local full = {MAX_RETRY_AFTER_MS}
if rate > 0 then full = math.min(full, math.ceil((burst - level) / rate * 1000) + 1000) end
redis.call('PEXPIRE', KEYS[1], full)
return {{granted, 0}}
"""

_log = structlog.get_logger(__name__)


class Commands(Protocol):
    """A connection to Redis; `storage.redis.RedisClient` is one."""

    def command(self, *arguments: Any) -> Deferred[Any]: ...


class SharedRateLimiter:
    """A `RateLimiter` over Redis. `alone` limits while Redis does not answer."""

    def __init__(
        self,
        limits: RateLimits,
        clock: IReactorTime,
        redis: Commands,
        alone: MemoryRateLimiter,
        prefix: str = PREFIX,
    ) -> None:
        self._enabled = limits.enabled
        self._exempt = frozenset(limits.exempt_users)
        self._rates: dict[str, Rate] = {
            field.name: rate
            for field in fields(limits)
            if isinstance(rate := getattr(limits, field.name), Rate)
        }
        self._clock: Any = clock
        self._redis = redis
        self._alone = alone
        self._prefix = prefix
        self._away_until = 0
        # (class, key) -> (tokens left, until when), the oldest first
        self._leases: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

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
        """See `RateLimiter.check`."""
        key = limited_key(requester, request, origin, self._exempt)
        if key is not None:
            own = own_rate(requester, rate_class, self._rates[rate_class])
            await self._spend(rate_class, key, own)

    async def spend(self, rate_class: str, key: str) -> None:
        """See `RateLimiter.spend`."""
        await self._spend(rate_class, key, self._rates[rate_class])

    async def _spend(self, rate_class: str, key: str, rate: Rate) -> None:
        if not self._enabled or self._spend_leased(rate_class, key):
            return
        now_ms = self._now()
        # A clock that was set back does not make it longer.
        if 0 < self._away_until - now_ms <= RETRY_MS:
            self._alone.take(rate_class, key, rate=rate)
            return
        wanted = max(1, rate.burst // _LEASED_AT_ONCE)
        bucket = f"{self._prefix}{rate_class}:{key}".encode("utf-8", "surrogatepass")
        try:
            asked = self._redis.command(
                "EVAL", _TAKE, 1, bucket, rate.per_second, rate.burst, wanted
            )
            granted, wait_ms = await in_time(asked, self._clock, TIMEOUT_S)
        except Exception as error:
            self._away_until = self._now() + RETRY_MS
            _log.warning("Limits are not shared: Redis does not answer", reason=str(error))
            self._alone.take(rate_class, key, rate=rate)
            return
        if not granted:
            # Others that asked at the same time may have been given more than they needed.
            if self._spend_leased(rate_class, key):
                return
            raise limit_exceeded(max(1, min(int(wait_ms), MAX_RETRY_AFTER_MS)))
        if granted > 1:
            self._lease(rate_class, key, int(granted) - 1)

    def _spend_leased(self, rate_class: str, key: str) -> bool:
        lease = self._leases.get((rate_class, key))
        if lease is None:
            return False
        left, until = lease
        if until <= self._now():
            del self._leases[rate_class, key]
            return False
        if left > 1:
            self._leases[rate_class, key] = (left - 1, until)
        else:
            del self._leases[rate_class, key]
        return True

    def _lease(self, rate_class: str, key: str, tokens: int) -> None:
        now_ms = self._now()
        left, _ = self._leases.pop((rate_class, key), (0, 0))
        self._leases[rate_class, key] = (left + tokens, now_ms + LEASE_MS)
        while self._leases:
            oldest, (_, until) = next(iter(self._leases.items()))
            if until > now_ms and len(self._leases) <= _MAX_LEASES:
                return
            del self._leases[oldest]

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
