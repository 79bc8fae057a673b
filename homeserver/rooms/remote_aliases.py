"""Finding rooms by their aliases, wherever those are (client-server API, "Room aliases")."""

from __future__ import annotations

from dataclasses import dataclass

from federation.client.directory import DirectoryCalls
from federation.client.errors import RemoteError, RemoteHttpError
from homeserver.core import errors
from homeserver.core.ids import RoomAlias, RoomID
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.remote_attempts import client_error
from storage import room_servers, rooms
from storage.database import Database
from storage.transaction import Transaction

MAX_SERVERS = 50
"""Servers of a room that are named with an alias."""


@dataclass(frozen=True, slots=True)
class FoundRoom:
    """A room, and servers by which it can be joined."""

    room_id: RoomID
    servers: tuple[str, ...] = ()


class RoomFinder:
    """Finds the rooms that aliases point to."""

    def __init__(self, db: Database, aliases: Aliases, directory: DirectoryCalls) -> None:
        self._db = db
        self._aliases = aliases
        self._directory = directory

    async def room_of(self, alias: RoomAlias) -> str | None:
        """The ID of the room of an alias; None if there is none or its server does not answer."""
        try:
            return (await self.find(alias)).room_id
        except errors.MatrixError:
            return None

    async def find(self, alias: RoomAlias) -> FoundRoom:
        """The room of an alias; its own server is asked if it is another's.

        Raises:
            MatrixError: 404 `M_NOT_FOUND`; 502 `M_UNKNOWN` if the other server does not answer.
        """
        own_name = self._aliases.server_name
        if alias.domain == own_name:
            room_id = await self._aliases.resolve(alias)
            if room_id is None:
                raise errors.not_found("There is no such room alias.")
            others = await self._db.read(_servers, room_id)
            return FoundRoom(RoomID(room_id), (own_name, *others))
        try:
            found = await self._directory.alias(alias.domain, alias)
        except RemoteHttpError as problem:
            if problem.status == 404:
                raise errors.not_found("There is no such room alias.")
            raise client_error(problem)
        except RemoteError as problem:
            raise client_error(problem)
        # That server may be the only one that knows the room's others.
        servers = dict.fromkeys((*found.servers, alias.domain))
        return FoundRoom(RoomID(found.room_id), tuple(servers))


def _servers(txn: Transaction, room_id: str) -> list[str]:
    room_nid = rooms.nid(txn, room_id)
    return room_servers.of_room(txn, room_nid)[:MAX_SERVERS] if room_nid is not None else []
