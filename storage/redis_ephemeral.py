"""Typing and presence in Redis, shared by all processes.

Keys: `counter`; `typing` (sorted set of "room\\nuser" by the time at which it ends);
`typing:ROOM` (set of users); `changed` (sorted set of rooms by the counter at their last change);
`presence` (hash of users to "serial:value"). Each operation is one script, and so atomic.

While Redis is away nobody is seen to type or to be online, and the server works on. A Redis that
does not answer is left alone for some seconds, so that no request has to wait for it again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog
import txredisapi
from twisted.internet.interfaces import IReactorTime

from homeserver.in_time import in_time
from storage.ephemeral import MAX_REMEMBERED, PresenceEntry
from storage.redis import RedisAddress, RedisClient

TIMEOUT_S = 2.0
RETRY_MS = 5_000
"""For how long Redis is not asked again after it did not answer."""

_log = structlog.get_logger(__name__)

_NEXT = """
local function next()
  if redis.call('EXISTS', KEYS[1] .. 'counter') == 0 then
    redis.call('SET', KEYS[1] .. 'counter', ARGV[1])
  end
  return redis.call('INCR', KEYS[1] .. 'counter')
end
local function changed(room)
  redis.call('ZADD', KEYS[1] .. 'changed', next(), room)
  redis.call('ZREMRANGEBYRANK', KEYS[1] .. 'changed', 0, -KEEP)
end
""".replace("KEEP", str(MAX_REMEMBERED + 1))

_SET_TYPING = (
    _NEXT
    + """
local member = ARGV[2] .. '\\n' .. ARGV[3]
local was = redis.call('ZSCORE', KEYS[1] .. 'typing', member)
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[1] .. 'typing', member)
  redis.call('SREM', KEYS[1] .. 'typing:' .. ARGV[2], ARGV[3])
  if not was then return 0 end
else
  redis.call('ZADD', KEYS[1] .. 'typing', ARGV[4], member)
  redis.call('SADD', KEYS[1] .. 'typing:' .. ARGV[2], ARGV[3])
  if was then return 0 end
end
changed(ARGV[2])
return 1
"""
)

_EXPIRE = (
    _NEXT
    + """
local over = redis.call('ZRANGEBYSCORE', KEYS[1] .. 'typing', '-inf', ARGV[1], 'LIMIT', 0, 1000)
local rooms, seen = {}, {}
for _, member in ipairs(over) do
  local cut = string.find(member, '\\n', 1, true)
  local room = string.sub(member, 1, cut - 1)
  redis.call('ZREM', KEYS[1] .. 'typing', member)
  redis.call('SREM', KEYS[1] .. 'typing:' .. room, string.sub(member, cut + 1))
  if not seen[room] then
    seen[room] = true
    rooms[#rooms + 1] = room
    changed(room)
  end
end
return rooms
"""
)

_TYPING = """
local found = {}
for i = 2, #ARGV do
  local wanted
  if ARGV[1] == '' then
    wanted = redis.call('EXISTS', KEYS[1] .. 'typing:' .. ARGV[i]) == 1
  else
    local at = redis.call('ZSCORE', KEYS[1] .. 'changed', ARGV[i])
    wanted = at and tonumber(at) > tonumber(ARGV[1])
  end
  if wanted then
    found[#found + 1] = {ARGV[i], redis.call('SMEMBERS', KEYS[1] .. 'typing:' .. ARGV[i])}
  end
end
return found
"""

_TYPING_SINCE = """
local found = {}
for _, room in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1] .. 'changed', '(' .. ARGV[1], '+inf')) do
  found[#found + 1] = {room, redis.call('SMEMBERS', KEYS[1] .. 'typing:' .. room)}
end
return found
"""

_PUT_PRESENCE = (
    _NEXT
    + """
local old = redis.call('HGET', KEYS[1] .. 'presence', ARGV[2])
local serial
if old and ARGV[4] == '0' then
  serial = string.match(old, '^(%d+):')
else
  serial = next()
end
redis.call('HSET', KEYS[1] .. 'presence', ARGV[2], serial .. ':' .. ARGV[3])
return tostring(serial)
"""
)

_POSITION = (
    _NEXT
    + """
local at = redis.call('GET', KEYS[1] .. 'counter')
if not at then at = next() end
return tostring(at)
"""
)


class RedisEphemeral:
    """See `storage.ephemeral.EphemeralStore`."""

    def __init__(
        self, url: str, reactor: Any, prefix: str = "hearth:", timeout_s: float = TIMEOUT_S
    ) -> None:
        self._clock: IReactorTime = reactor
        self._prefix = prefix
        self._client: RedisClient = RedisAddress.parse(url).client(reactor)
        self._timeout_s = timeout_s
        self._last_position = 0
        self._away = False
        self._silent_until = 0

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def _command(self, *arguments: Any) -> Any:
        """The reply, or None while Redis is away."""
        # A clock that was set back does not make it longer.
        if 0 < self._silent_until - self._now() <= RETRY_MS:
            return None
        try:
            reply = await in_time(self._client.command(*arguments), self._clock, self._timeout_s)
        except (txredisapi.ConnectionError, txredisapi.TimeoutError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._silent_until = self._now() + RETRY_MS
            if not self._away:
                self._away = True
                _log.warning("Typing and presence are lost: Redis is away", reason=str(error))
            return None
        self._away = False
        return reply

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._command("EVAL", script, 1, self._prefix, *arguments)

    async def position(self) -> int:
        reply = await self._run(_POSITION, self._now())
        if reply is not None:
            self._last_position = int(reply)
        return self._last_position

    async def set_typing(self, room_id: str, user_id: str, until_ms: int | None) -> bool:
        until = "" if until_ms is None else until_ms
        return bool(await self._run(_SET_TYPING, self._now(), room_id, user_id, until))

    async def typing(self, room_ids: Collection[str], since: int | None) -> dict[str, list[str]]:
        if not room_ids:
            return {}
        rows = await self._run(_TYPING, "" if since is None else since, *room_ids)
        return {_text(room): sorted(map(_text, users)) for room, users in rows or ()}

    async def typing_since(self, since: int) -> dict[str, list[str]]:
        rows = await self._run(_TYPING_SINCE, since)
        return {_text(room): sorted(map(_text, users)) for room, users in rows or ()}

    async def expire_typing(self) -> list[str]:
        return [_text(room) for room in await self._run(_EXPIRE, self._now()) or ()]

    async def put_presence(self, user_id: str, value: str, *, announce: bool = True) -> int:
        flag = "1" if announce else "0"
        serial = await self._run(_PUT_PRESENCE, self._now(), user_id, value, flag)
        return self._last_position if serial is None else int(serial)

    async def presence(self, user_ids: Collection[str]) -> dict[str, PresenceEntry]:
        if not user_ids:
            return {}
        names = list(user_ids)
        values = await self._command("HMGET", self._prefix + "presence", *names)
        found = {}
        for name, value in zip(names, values or [None] * len(names), strict=True):
            if value is not None:
                serial, _, text = _text(value).partition(":")
                found[name] = PresenceEntry(int(serial), text)
        return found

    async def close(self) -> None:
        await self._client.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
