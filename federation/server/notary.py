"""The keys of other servers, passed on.

Server-Server API, "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from federation.client.keyring import Keyring
from federation.server.own_keys import OwnKeys
from homeserver.core import canonical
from homeserver.core.errors import MatrixError
from homeserver.core.types import JsonObject
from homeserver.web.limits import MemoryRateLimiter, address_key
from storage import server_keys
from storage.database import Database
from storage.server_keys import KeyRow


class Criteria(NamedTuple):
    """What is asked for of one server.

    `key_ids` maps key IDs to the time (ms) until which the answer shall be valid; without any,
    all keys are wanted, with an answer valid until `minimum_ts`. None stands for now.
    """

    key_ids: Mapping[str, int | None]
    minimum_ts: int | None = None


MAX_ASKED = 100
"""Servers that are asked anew for one query; for others what is stored must do."""

KEY_QUERIES = "key_queries"
"""Class of rate limits: servers that are asked for their keys because an address wants it."""

_PATIENCE_S = 20.0


class Notary:
    """Passes on what other servers publish, with the signature of this one."""

    def __init__(
        self,
        db: Database,
        keyring: Keyring,
        own_keys: OwnKeys,
        clock: IReactorTime,
        limiter: MemoryRateLimiter,
    ) -> None:
        self._db = db
        self._keyring = keyring
        self._own_keys = own_keys
        self._clock = clock
        self._limiter = limiter

    async def query(self, wanted: Mapping[str, Criteria], address: str) -> list[JsonObject]:
        """The answers of servers, signed by each and by this server.

        Stored ones are used for half of their life; older ones if the server gives no better, or
        when others were asked too much lately for `address`, from which the query comes.
        """
        found: list[JsonObject] = []
        others = {name: wanted[name] for name in wanted if name != self._own_keys.server_name}
        if len(others) < len(wanted):
            found.append(self._own_keys.published())
        if not others:
            return found
        rows = await self._rows(others)
        now_ms = int(self._clock.seconds() * 1000)
        stale = [name for name in others if _is_stale(others[name], rows[name], now_ms)]
        asked = self._allowed(stale[:MAX_ASKED], address)
        if asked:
            await self._keyring.refresh(asked, _PATIENCE_S)
            rows |= await self._rows(asked)
        hashes = {
            (row.server_name, row.answer_hash): None
            for name, criteria in others.items()
            for row in _chosen(criteria, rows[name])
        }
        texts = await self._db.read(server_keys.answers, list(hashes))
        return found + [self._own_keys.countersign(canonical.parse_object(t)) for t in texts]

    def _allowed(self, servers: list[str], address: str) -> list[str]:
        """As many of the servers as may be asked on behalf of an address now."""
        key = address_key(address)
        for number in range(len(servers)):
            try:
                self._limiter.take(KEY_QUERIES, key)
            except MatrixError:
                return servers[:number]
        return servers

    async def _rows(self, names: Iterable[str]) -> dict[str, list[KeyRow]]:
        by_server: dict[str, list[KeyRow]] = {name: [] for name in names}
        for row in await self._db.read(server_keys.of_servers, list(by_server)):
            by_server[row.server_name].append(row)
        return by_server


def _chosen(criteria: Criteria, rows: list[KeyRow]) -> list[KeyRow]:
    """The rows that a query is about, the newest answer first."""
    chosen = [row for row in rows if not criteria.key_ids or row.key_id in criteria.key_ids]
    return sorted(chosen, key=lambda row: -row.answer_valid_until_ts)


def _is_stale(criteria: Criteria, rows: list[KeyRow], now_ms: int) -> bool:
    """Shall the server be asked anew?"""
    chosen = _chosen(criteria, rows)
    if not criteria.key_ids:
        return not chosen or not _is_fresh(chosen[0], criteria.minimum_ts, now_ms)
    fresh = {row.key_id for row in chosen if _is_fresh(row, criteria.key_ids[row.key_id], now_ms)}
    return fresh != criteria.key_ids.keys()


def _is_fresh(row: KeyRow, minimum_ts: int | None, now_ms: int) -> bool:
    half_of_life = (row.answer_fetched_ts + row.answer_valid_until_ts) // 2
    minimum = now_ms if minimum_ts is None else minimum_ts
    return now_ms < half_of_life and row.answer_valid_until_ts >= minimum
