"""Devices of users who enter a room are told to the servers in it (server-server API, "Device
Management"): those servers have not got updates about them so far."""

from __future__ import annotations

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.encryption.device_lists import keys_changed_for
from homeserver.rooms.rooted import MEMBER
from homeserver.rooms.write import WrittenEvent, WrittenRoom
from storage import device_keys, device_updates, memberships, room_servers
from storage.database import Database
from storage.errors import log_failure
from storage.transaction import Transaction

_log = structlog.get_logger(__name__)


class NewNeighbours:
    """Watches who of this server's users enters which room."""

    def __init__(self, db: Database, clock: IReactorTime, server_name: str) -> None:
        self._db = db
        self._clock = clock
        self._end = f":{server_name}"
        self._running = 0
        self._idle: list[Deferred[None]] = []

    def written(self, room: WrittenRoom) -> None:
        """To be called after each commit to a room."""
        users = {each.event.state_key for each in room.entries if self._is_entry(each)}
        wanted = sorted(user for user in users if user is not None)
        if wanted:
            self._running += 1
            Deferred.fromCoroutine(self._tell(room.room_nid, wanted))

    def _is_entry(self, written: WrittenEvent) -> bool:
        event, before = written.event, written.replaces
        return (
            event.type == MEMBER
            and event.membership == "join"
            and event.state_key is not None
            and event.state_key.endswith(self._end)
            and (before is None or before.membership != "join")
        )

    async def drained(self) -> None:
        """Wait for what is under way."""
        if self._running:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    async def _tell(self, room_nid: int, user_ids: list[str]) -> None:
        try:
            now_ms = int(self._clock.seconds() * 1000)
            # Most rooms have no other servers: nothing is written for them.
            new = await self._db.read(_unknown_to_others, room_nid, user_ids)
            if new:
                await self._db.write(_announce, new, now_ms)
        except Exception as error:
            what = "Devices were not told to the servers of a room"
            log_failure(_log, what, error, room_nid=room_nid)
        finally:
            self._running -= 1
            if not self._running:
                idle, self._idle = self._idle, []
                for waiter in idle:
                    waiter.callback(None)


def _unknown_to_others(txn: Transaction, room_nid: int, user_ids: list[str]) -> list[str]:
    """Those of the users who share no other room with some server of this one."""
    servers = set(room_servers.of_room(txn, room_nid))
    if not servers:
        return []
    found = []
    for user_id in user_ids:
        others = [row.room_nid for row in memberships.of_user(txn, user_id, ["join"])]
        before = room_servers.of_rooms(txn, [nid for nid in others if nid != room_nid])
        if servers - {server for each in before.values() for server in each}:
            found.append(user_id)
    return found


def _announce(txn: Transaction, user_ids: list[str], now_ms: int) -> None:
    """Have all devices of the users told, as if they had changed.

    Their own devices are told as well, as other homeservers do it.
    """
    for row in [row for user in user_ids for row in device_keys.all_devices(txn, user)]:
        device_updates.record(txn, row.user_id, row.device_id, now_ms)
    for user_id in user_ids:
        keys_changed_for(txn, user_id, user_id)
