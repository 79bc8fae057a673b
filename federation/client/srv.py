"""SRV records of servers: cached by their time to live, chosen by priority and weight."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from twisted.internet.interfaces import IReactorTime

from federation.client.names import SrvRecord
from federation.client.route import Endpoint
from federation.client.shared import SharedLookups
from homeserver.cache import Cache

_MIN_TTL_S = 60
_MAX_TTL_S = 3600
_ABSENT_TTL_S = 300


@dataclass(frozen=True, slots=True)
class _Known:
    records: list[SrvRecord]

    @property
    def lives_s(self) -> float:
        ttl = min((record.ttl_s for record in self.records), default=_ABSENT_TTL_S)
        return min(max(ttl, _MIN_TTL_S), _MAX_TTL_S)


class SrvLookup:
    """Finds SRV records, and remembers them and their absence."""

    def __init__(
        self, ask: Callable[[str], Awaitable[list[SrvRecord]]], clock: IReactorTime
    ) -> None:
        """`ask` asks name servers, and raises `LookupFailed`."""
        self._services = ask
        self._shared: SharedLookups[list[SrvRecord]] = SharedLookups()
        self._known: Cache[str, _Known] = Cache("srv_records", share=0.05, seconds=clock.seconds)
        self.caches = (self._known,)

    async def find(self, name: str) -> list[SrvRecord]:
        """The records of `name`; empty if there are none. Raises `LookupFailed`."""
        name = name.lower()
        known = self._known.get(name)
        if known is not None:
            return known.records
        return await self._shared.get(name, lambda: self._ask(name))

    async def _ask(self, name: str) -> list[SrvRecord]:
        records = await self._services(name)
        known = _Known(records)
        self._known.put(name, known, lives_s=known.lives_s)
        return records


def ordered(endpoints: Sequence[Endpoint], random: Random) -> list[Endpoint]:
    """The order in which to try endpoints (RFC 2782).

    Lower priorities come first; within one, each next endpoint is drawn with a probability in
    proportion to its weight, those of weight 0 with a very small one.
    """
    chosen: list[Endpoint] = []
    for priority in sorted({endpoint.priority for endpoint in endpoints}):
        left = [endpoint for endpoint in endpoints if endpoint.priority == priority]
        left.sort(key=lambda endpoint: endpoint.weight)
        while left:
            mark = random.randint(0, sum(endpoint.weight for endpoint in left))
            for endpoint in left:
                mark -= endpoint.weight
                if mark <= 0:
                    break
            left.remove(endpoint)
            chosen.append(endpoint)
    return chosen
