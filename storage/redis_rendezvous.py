"""Mailboxes in Redis, shared by all processes.

Keys: `rendezvous:ID` (hash of data, token, modified, expires; Redis forgets it in time) and
`rendezvous` (sorted set of IDs by the time at which they end).
"""

from __future__ import annotations

from typing import Any

import txredisapi
from twisted.internet.interfaces import IReactorTime

from storage.errors import DatabaseUnavailable
from storage.redis import RedisAddress, RedisClient
from storage.rendezvous import CAPACITY, LIFETIME_MS, Mailbox, new_token

_CREATE = """
local all = KEYS[1] .. 'rendezvous'
redis.call('ZREMRANGEBYSCORE', all, '-inf', ARGV[4])
local excess = redis.call('ZCARD', all) + 1 - tonumber(ARGV[6])
if excess > 0 then
  for _, old in ipairs(redis.call('ZRANGE', all, 0, excess - 1)) do
    redis.call('DEL', all .. ':' .. old)
    redis.call('ZREM', all, old)
  end
end
redis.call('ZADD', all, ARGV[5], ARGV[1])
local key = all .. ':' .. ARGV[1]
redis.call('HSET', key, 'data', ARGV[2], 'token', ARGV[3], 'modified', ARGV[4], 'expires', ARGV[5])
redis.call('PEXPIREAT', key, ARGV[5])
return 1
"""

_REPLACE = """
local key = KEYS[1] .. 'rendezvous:' .. ARGV[1]
if redis.call('HGET', key, 'token') == ARGV[2] then
  redis.call('HSET', key, 'data', ARGV[3], 'token', ARGV[4], 'modified', ARGV[5])
end
return redis.call('HMGET', key, 'data', 'token', 'modified', 'expires')
"""

_DELETE = """
redis.call('ZREM', KEYS[1] .. 'rendezvous', ARGV[1])
return redis.call('DEL', KEYS[1] .. 'rendezvous:' .. ARGV[1])
"""


class RedisRendezvous:
    """See `storage.rendezvous.RendezvousStore`. Raises DatabaseUnavailable without Redis."""

    def __init__(
        self, url: str, reactor: Any, prefix: str = "hearth:", capacity: int = CAPACITY
    ) -> None:
        self._clock: IReactorTime = reactor
        self._prefix = prefix
        self._capacity = capacity
        self._client: RedisClient = RedisAddress.parse(url).client(reactor)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def _command(self, *arguments: Any) -> Any:
        try:
            return await self._client.command(*arguments)
        except (txredisapi.ConnectionError, txredisapi.TimeoutError) as error:
            raise DatabaseUnavailable(f"Redis is away: {error}") from error

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._command("EVAL", script, 1, self._prefix, *arguments)

    async def create(self, mailbox_id: str, data: bytes) -> Mailbox:
        now = self._now()
        box = Mailbox(data, new_token(), now, now + LIFETIME_MS)
        await self._run(_CREATE, mailbox_id, data, box.token, now, box.expires_ms, self._capacity)
        return box

    async def get(self, mailbox_id: str) -> Mailbox | None:
        key = f"{self._prefix}rendezvous:{mailbox_id}"
        return _mailbox(await self._command("HMGET", key, "data", "token", "modified", "expires"))

    async def replace(self, mailbox_id: str, token: str, data: bytes) -> Mailbox | None:
        return _mailbox(
            await self._run(_REPLACE, mailbox_id, token, data, new_token(), self._now())
        )

    async def delete(self, mailbox_id: str) -> bool:
        return bool(await self._run(_DELETE, mailbox_id))

    async def close(self) -> None:
        await self._client.close()


def _mailbox(values: list[Any]) -> Mailbox | None:
    data, token, modified, expires = values
    if data is None or expires is None:
        return None
    return Mailbox(bytes(data), token.decode(), int(modified), int(expires))
