"""Room aliases of this server (client-server API, "Room aliases")."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from homeserver.core import errors
from homeserver.core.event import Event
from homeserver.core.ids import RoomAlias, RoomID
from homeserver.core.power_levels import PowerLevels
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms import blocking
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.requests import AppendRequest, StateView
from homeserver.web.request import Requester
from storage import aliases, memberships, rooms, state
from storage.database import Database
from storage.rooms import RoomRow
from storage.transaction import Transaction

CANONICAL = "m.room.canonical_alias"


class Aliases:
    """Makes, finds and removes aliases.

    Parameters: `require_membership`, whether one must be joined to a room to name it.
    """

    def __init__(
        self, db: Database, appender: Appender, server_name: str, require_membership: bool = True
    ) -> None:
        self._db = db
        self._appender = appender
        self._server_name = server_name
        self._require_membership = require_membership
        self.elsewhere: Callable[[RoomAlias], Awaitable[str | None]] | None = None
        """Finds the rooms of other servers' aliases."""
        self.asked: Callable[[RoomAlias], Awaitable[bool]] | None = None
        """Has application services make an alias that there is not; whether one did."""
        self.check_claimed: Callable[[Requester, RoomAlias], None] = lambda requester, alias: None
        """Raises MatrixError 400 M_EXCLUSIVE for aliases of application services."""
        self.owned: Callable[[Requester, RoomAlias], bool] = lambda requester, alias: False
        """Whether the requester is the application service whose alias it is."""

    async def resolve(self, alias: RoomAlias) -> str | None:
        """The ID of the room that an alias points to; None if there is none.

        The server of another server's alias is asked.
        """
        if alias.domain == self._server_name:
            found = await self._db.read(_resolve, alias)
            if found is None and self.asked is not None and await self.asked(alias):
                found = await self._db.read(_resolve, alias)
            return found
        return await self.elsewhere(alias) if self.elsewhere is not None else None

    @property
    def server_name(self) -> str:
        """The domain of the aliases that can be made here."""
        return self._server_name

    async def create(self, requester: Requester, alias: RoomAlias, room_id: RoomID) -> None:
        """Point a new alias to a room.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for another server's alias, `M_EXCLUSIVE`; 403
                `M_FORBIDDEN` outside the room; 404 `M_NOT_FOUND`; 409 `M_UNKNOWN` if the alias
                is taken.
        """
        self._require_own(alias)
        self.check_claimed(requester, alias)
        needs = self._require_membership and not requester.is_admin
        await self._db.write(_create, alias, room_id, requester.user_id, needs)

    async def delete(self, requester: Requester, alias: RoomAlias) -> None:
        """Remove an alias, also from the room's canonical aliases where the requester may.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` for others than its maker, moderators of the room, the
                application service that it belongs to and administrators of the server; 404
                `M_NOT_FOUND`; 400 `M_EXCLUSIVE`.
        """
        self._require_own(alias)
        if requester.appservice_id is not None:
            self.check_claimed(requester, alias)
        may = requester.is_admin or self.owned(requester, alias)
        room_id = await self._db.write(_delete, alias, requester.user_id, may)
        try:
            await self._appender.append(
                AppendRequest(
                    room_id,
                    lambda view: _without(view, alias, requester.user_id),
                    pretend=requester.is_shadow_banned,
                )
            )
        except errors.MatrixError:
            # Whoever may remove an alias may not always change the room's state.
            return

    async def of_room(self, requester: Requester, room_id: RoomID) -> list[str]:
        """The aliases of a room. Raises MatrixError 403 `M_FORBIDDEN` for outsiders, unless they
        are administrators of the server."""
        return await self._db.read(_of_room, room_id, requester.user_id, requester.is_admin)

    def _require_own(self, alias: RoomAlias) -> None:
        if alias.domain != self._server_name:
            raise errors.invalid_param(f"Aliases on this server end in :{self._server_name}.")


def _resolve(txn: Transaction, alias: str) -> str | None:
    row = aliases.get(txn, alias)
    found = rooms.get_many(txn, [row.room_nid]) if row is not None else {}
    return found[row.room_nid].room_id if row is not None and row.room_nid in found else None


def _is_joined(txn: Transaction, room_nid: int, user_id: str) -> bool:
    row = memberships.get(txn, room_nid, user_id)
    return row is not None and row.membership == "join"


def _create(
    txn: Transaction, alias: str, room_id: str, user_id: str, needs_membership: bool
) -> None:
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        raise errors.not_found("This room is not known here.")
    blocking.check(txn, room_id)
    if needs_membership and not _is_joined(txn, room_nid, user_id):
        raise errors.forbidden("You are not in this room.")
    if not aliases.insert(txn, alias, room_nid, user_id):
        raise errors.MatrixError(409, "M_UNKNOWN", f"The room alias {alias} is taken.")


def _delete(txn: Transaction, alias: str, user_id: str, may: bool) -> str:
    row = aliases.get(txn, alias)
    room = rooms.get_many(txn, [row.room_nid]).get(row.room_nid) if row is not None else None
    if row is None or room is None:
        raise errors.not_found("There is no such room alias.")
    if not may and row.creator != user_id and not moderates(txn, room, user_id):
        raise errors.forbidden("Only its maker or a moderator may remove this alias.")
    aliases.delete(txn, alias)
    return room.room_id


def moderates(txn: Transaction, room: RoomRow, user_id: str) -> bool:
    """Whether the user is joined and may set the room's canonical alias."""
    if not _is_joined(txn, room.room_nid, user_id):
        return False
    version = ROOM_VERSIONS[room.version]
    rows = state.current(txn, room.room_nid, [("m.room.create", ""), ("m.room.power_levels", "")])
    found = {key: Event.from_json(row.json, version, row.event_id) for key, row in rows.items()}
    create = found.get(("m.room.create", ""))
    if create is None:
        return False
    power = PowerLevels.of(found.get(("m.room.power_levels", "")), create)
    return power.user_level(user_id) >= power.event_level(CANONICAL, True)


def _without(view: StateView, alias: str, user_id: str) -> list[EventTemplate]:
    current = view.get(CANONICAL)
    if current is None:
        return []
    content: JsonObject = dict(current.content)
    others = content.get("alt_aliases")
    kept = [name for name in others if name != alias] if isinstance(others, list) else None
    if content.get("alias") != alias and kept == others:
        return []
    if content.get("alias") == alias:
        del content["alias"]
    if kept is not None:
        content["alt_aliases"] = kept
        if not kept:
            del content["alt_aliases"]
    return [EventTemplate(CANONICAL, user_id, content, "")]


def _of_room(txn: Transaction, room_id: str, user_id: str, is_admin: bool) -> list[str]:
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        raise errors.forbidden("You are not in this room.")
    if not is_admin and not _is_joined(txn, room_nid, user_id):
        key = ("m.room.history_visibility", "")
        row = state.current(txn, room_nid, [key]).get(key)
        shown = json.loads(row.json)["content"].get("history_visibility") if row else None
        if shown != "world_readable":
            raise errors.forbidden("You are not in this room.")
    return aliases.of_room(txn, room_nid)
