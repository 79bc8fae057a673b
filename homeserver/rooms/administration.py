"""What administrators of the server do in rooms beside deleting them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.ids import InvalidIdentifier, RoomAlias, RoomID, UserID
from homeserver.core.power_levels import PowerLevels
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.membership import Membership
from homeserver.rooms.merging import DUMMY
from homeserver.rooms.requests import AppendRequest
from homeserver.rooms.send import Sending
from homeserver.web.request import Requester
from storage import events, memberships, rooms, state, users
from storage.database import Database
from storage.rooms import RoomRow
from storage.transaction import Transaction

_CREATE: StateKey = ("m.room.create", "")
_POWER: StateKey = ("m.room.power_levels", "")
_RULES: StateKey = ("m.room.join_rules", "")
_MEMBER = "m.room.member"
_MAX_SENDERS = 20
_MAX_MERGES = 50
FULL_LEVEL = 100
"""What somebody gets from a creator, whose own power has no number (room version 12)."""


class Extremity(NamedTuple):
    """A head of a room."""

    event_id: str
    number: int
    depth: int
    origin_server_ts: int


class _Power(NamedTuple):
    """Who may make somebody an administrator of a room, and what that needs."""

    giver: str
    level: int
    content: JsonObject
    needs_invite: bool


class RoomAdministration:
    """Acts in rooms for administrators of the server.

    Parameters: `server_name` is this server's own.
    """

    def __init__(
        self,
        db: Database,
        appender: Appender,
        members: Membership,
        sending: Sending,
        aliases: Aliases,
        server_name: str,
    ) -> None:
        self._db = db
        self._appender = appender
        self._members = members
        self._sending = sending
        self._aliases = aliases
        self._server_name = server_name

    async def resolve(self, room_or_alias: str) -> RoomID:
        """The ID of a room that is named by its ID or an alias.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for neither; 404 `M_NOT_FOUND`.
        """
        try:
            if not room_or_alias.startswith("#"):
                return RoomID.parse(room_or_alias)
            found = await self._aliases.resolve(RoomAlias.parse(room_or_alias))
        except InvalidIdentifier:
            raise errors.invalid_param(
                f"{room_or_alias} was not legal room ID or room alias"
            ) from None
        if found is None:
            raise errors.not_found(f"Room alias {room_or_alias} not found")
        return RoomID(found)

    async def event(self, event_id: str) -> JsonObject:
        """An event as servers exchange it. Raises MatrixError 404 `M_NOT_FOUND`."""
        row = await self._db.read(events.get, event_id)
        if row is None:
            raise errors.not_found("Event not found")
        found: JsonObject = json.loads(row.json)
        return {**found, "event_id": row.event_id, "unsigned": {"age_ts": row.origin_server_ts}}

    async def join(
        self, admin: Requester, user_id: str, room_or_alias: str, via: Sequence[str] = ()
    ) -> RoomID:
        """Have a user of this server join a room; its ID. Where not everybody may join, the
        administrator invites the user.

        Raises:
            MatrixError: 400 `M_UNKNOWN` for a user of another server; 404 `M_NOT_FOUND` for an
                unknown user or room; as `Membership.join` and `Membership.invite`.
        """
        target = _user(user_id)
        if target.domain != self._server_name:
            raise errors.unknown("This endpoint can only be used with local users")
        user = await self._db.read(users.get_user, target)
        if user is None:
            raise errors.not_found("User not found")
        room_id = await self.resolve(room_or_alias)
        if await self._db.read(_needs_invite, room_id, target) and target != admin.user_id:
            await self._members.invite(admin, room_id, target, must_invite=True)
        await self._members.join(
            Requester(target, is_guest=user.is_guest, is_rate_limited=False), room_id, None, via
        )
        return room_id

    async def make_admin(self, admin: Requester, room_or_alias: str, user_id: str | None) -> None:
        """Give a user the highest power that a user of this server has in a room, and let them in.

        Parameters: `user_id`, None for the administrator.

        Raises:
            MatrixError: 400 `M_UNKNOWN` where no user of this server has the power to.
        """
        room_id = await self.resolve(room_or_alias)
        target = admin.user_id if user_id is None else _user(user_id)
        power = await self._db.read(_power, room_id, target)
        giver = Requester(UserID(power.giver), is_rate_limited=False)
        levels = power.content.get("users")
        named = {**(levels if isinstance(levels, dict) else {}), target: power.level}
        content = {**power.content, "users": named}
        try:
            await self._sending.send_state(giver, room_id, "m.room.power_levels", "", content)
        except MatrixError as refusal:
            if refusal.status != 403:
                raise
            raise errors.unknown(
                "No local admin user in room with power to update power levels."
            ) from None
        if power.needs_invite and target != giver.user_id:
            await self._members.invite(giver, room_id, target)

    async def extremities(self, room_or_alias: str) -> list[Extremity]:
        """The heads of a room."""
        room_id = await self.resolve(room_or_alias)

        def read(txn: Transaction) -> list[Extremity]:
            room = _room(txn, room_id)
            found = events.get_many(txn, room.extremities)
            return [
                Extremity(row.event_id, row.event_nid, row.depth, row.origin_server_ts)
                for row in sorted(found.values(), key=lambda row: row.event_nid)
            ]

        return await self._db.read(read)

    async def merge(self, room_or_alias: str) -> int:
        """Bring the heads of a room together; how many there are less.

        A user of this server says something that names them and shows nothing: so the state of
        the room stays what all of its servers can compute.

        Raises:
            MatrixError: 400 `M_UNKNOWN` where nobody of this server may say anything.
        """
        room_id = await self.resolve(room_or_alias)
        before = len((await self._db.read(_room, room_id)).extremities)
        now = before
        for _ in range(_MAX_MERGES):
            if now <= 1:
                break
            await self._say_nothing(room_id)
            now = len((await self._db.read(_room, room_id)).extremities)
        return before - now

    async def _say_nothing(self, room_id: RoomID) -> None:
        for user_id in await self._db.read(_local_users, room_id):
            try:
                await self._appender.append(
                    AppendRequest(room_id, [EventTemplate(DUMMY, user_id, {})])
                )
            except MatrixError:
                continue
            return
        raise errors.unknown("No user of this server may send events to this room.")


def _user(text: str) -> UserID:
    try:
        return UserID.parse(text)
    except InvalidIdentifier:
        raise errors.invalid_param("`user_id` is not a user ID.") from None


def _room(txn: Transaction, room_id: str) -> RoomRow:
    room = rooms.get(txn, room_id)
    if room is None:
        raise errors.not_found("Room not found")
    return room


def _local_users(txn: Transaction, room_id: str) -> list[str]:
    return memberships.local_joined(txn, _room(txn, room_id).room_nid)[:_MAX_SENDERS]


def _state(txn: Transaction, room: RoomRow, keys: Collection[StateKey]) -> dict[StateKey, Event]:
    version = ROOM_VERSIONS[room.version]
    rows = state.current(txn, room.room_nid, keys)
    return {key: Event.from_json(row.json, version, row.event_id) for key, row in rows.items()}


def _is_open(found: dict[StateKey, Event], user_id: str) -> bool:
    """Whether a user is in the room, invited, or needs no invite."""
    member, rules = found.get((_MEMBER, user_id)), found.get(_RULES)
    if member is not None and member.membership in ("join", "invite"):
        return True
    return rules is not None and rules.content.get("join_rule") == "public"


def _needs_invite(txn: Transaction, room_id: str, user_id: str) -> bool:
    room = rooms.get(txn, room_id)
    if room is None or not memberships.local_joined(txn, room.room_nid):
        return False  # others decide
    found = _state(txn, room, [_RULES, (_MEMBER, user_id)])
    return not _is_open(found, user_id)


def _power(txn: Transaction, room_id: str, target: str) -> _Power:
    room = _room(txn, room_id)
    found = _state(txn, room, [_CREATE, _POWER, _RULES, (_MEMBER, target)])
    create = found.get(_CREATE)
    if create is None:
        raise errors.unknown("Server not in room")
    power = PowerLevels.of(found.get(_POWER), create)
    present = memberships.local_joined(txn, room.room_nid)
    if not present:
        raise errors.unknown("No local admin user in room")
    giver = max(present, key=lambda user_id: (power.user_level(user_id), user_id))
    level = FULL_LEVEL if giver in power.creators else power.user_level(giver)
    event = found.get(_POWER)
    content = dict(event.content) if event is not None else {}
    return _Power(giver, level, content, not _is_open(found, target))
