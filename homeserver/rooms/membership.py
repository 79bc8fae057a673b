"""Joining, inviting, knocking, leaving, kicking and banning.

Client-server API, "Room membership" and "Knocking on rooms". Every change is one `m.room.member`
event; what it may be is decided on the newest state, under the room's lock. Where this server is
not in the room, or not alone concerned, others take part (`homeserver.rooms.remote_membership`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from homeserver.core import errors
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms import blocking, invite_blocking
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.remote_invite import RemoteInvites
from homeserver.rooms.remote_membership import RemoteMembership, Standing, standing
from homeserver.rooms.requests import AppendRequest, StateView
from homeserver.rooms.restricted import RestrictedJoins
from homeserver.web.request import Requester
from storage import memberships, notice_rooms, profiles, rooms, users
from storage.database import Database
from storage.transaction import Transaction

MEMBER = "m.room.member"
MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")
_SERVER_KEYS = ("join_authorised_via_users_server", "third_party_invite")
"""Keys of a member event's content that this server alone writes."""

Decide = Callable[[StateView, str | None], JsonObject | None]
"""From the state and the target's membership: the event's content, or None for "nothing to do"."""


class Membership:
    """Changes memberships of this server's users, and others' at their request."""

    def __init__(
        self, db: Database, appender: Appender, restricted: RestrictedJoins, server_name: str
    ) -> None:
        self._db = db
        self._appender = appender
        self._restricted = restricted
        self._server_name = server_name
        self._remote: tuple[RemoteMembership, RemoteInvites] | None = None
        self.meet: Callable[[str], Awaitable[object]] | None = None
        """Has application services make a user of this server that there is not."""

    def federate(self, remote: RemoteMembership, invites: RemoteInvites) -> None:
        """Have other servers take part; to be called once, before any request."""
        self._remote = remote, invites

    async def join(
        self,
        requester: Requester,
        room_id: RoomID,
        content: JsonObject | None = None,
        via: Sequence[str] = (),
    ) -> str:
        """Join a room; the ID of the member event, "" if nothing changed.

        Parameters: `content`, more keys of the member event, such as `reason` or names for this
        room; `via`, servers to join it through if this one is not in it.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 404 `M_NOT_FOUND` for an unknown room; see also
                `RemoteJoins.join`.
        """
        await blocking.check_now(self._db, room_id)
        given = _own_keys(content or {})
        profile = await self._profile(requester.user_id)
        found = await self._standing(room_id, requester.user_id)
        pretend = requester.is_shadow_banned and found.is_joined
        if requester.is_shadow_banned and not pretend:
            given = {}  # They come in, or they would know; but say nothing by it.
        joining = {**profile, **given, "membership": "join"}
        if not found.is_ours:
            if requester.is_guest:
                raise errors.guest_access_forbidden()
            event_id = await self._others.join(requester.user_id, room_id, joining, via)
            if event_id is not None:
                return event_id
        authoriser = await self._restricted.authoriser(room_id, requester.user_id)
        if authoriser is None and found.room is not None and found.room.remote_servers:
            event_id = await self._others.join_authorised(requester.user_id, room_id, joining)
            if event_id is not None:
                return event_id

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            wanted = dict(joining)
            if membership == "join" and not given:
                return None
            if requester.is_guest and not _guests_may_join(state):
                raise errors.guest_access_forbidden()
            if membership not in ("join", "invite") and authoriser is not None:
                wanted["join_authorised_via_users_server"] = authoriser
            elif membership not in ("join", "invite"):
                self._restricted.check(state)
            return wanted

        return await self._change(
            requester.user_id,
            room_id,
            requester.user_id,
            decide,
            blocking.check_within,
            pretend=pretend,
        )

    async def invite(
        self,
        requester: Requester,
        room_id: RoomID,
        target: UserID,
        content: JsonObject | None = None,
        *,
        must_invite: bool = False,
    ) -> str:
        """Invite somebody; the ID of the member event.

        Parameters: `must_invite`, also somebody who takes no invites.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` without the right, or if the target is banned or joined;
                403 `M_INVITE_BLOCKED`.
        """
        await blocking.check_now(self._db, room_id)
        if self.meet is not None:
            await self.meet(target)
        profile = await self._profile(target)

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            if membership == "join":
                raise errors.forbidden(f"{target} is in the room already.")
            if membership == "ban":
                raise errors.forbidden(f"{target} is banned from the room.")
            return {**profile, **_own_keys(content or {}), "membership": "invite"}

        def within(txn: Transaction, room_nid: int, room_id: str) -> None:
            if not must_invite:
                invite_blocking.check(txn, target, requester.user_id)

        pretend = requester.is_shadow_banned
        if target.domain == self._server_name or pretend:
            return await self._change(
                requester.user_id, room_id, target, decide, within, pretend=pretend
            )
        if self._remote is None:
            raise errors.forbidden("This server talks to no others.")
        templates = _member_template(requester.user_id, target, decide)
        return await self._remote[1].invite(AppendRequest(room_id, templates))

    async def knock(
        self,
        requester: Requester,
        room_id: RoomID,
        content: JsonObject | None = None,
        via: Sequence[str] = (),
    ) -> str:
        """Ask to be invited; the ID of the member event, "" if nothing changed.

        Parameters: `content`, more keys of the member event, such as `reason`; `via`, servers to
        knock through if this one is not in the room.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` where the room takes no knocks; 404 `M_NOT_FOUND`; see
                also `RemoteJoins.join`.
        """
        await blocking.check_now(self._db, room_id)
        given = _own_keys(content or {})
        profile = await self._profile(requester.user_id)
        found = await self._standing(room_id, requester.user_id)
        if not found.is_ours:
            if found.own is not None and found.own.membership == "knock":
                return ""
            if requester.is_shadow_banned:
                return ""
            knocking = {**profile, **given, "membership": "knock"}
            return await self._others.knock(requester.user_id, room_id, knocking, via)

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            if membership == "knock":
                return None
            return {**profile, **given, "membership": "knock"}

        return await self._change(
            requester.user_id,
            room_id,
            requester.user_id,
            decide,
            pretend=requester.is_shadow_banned,
        )

    async def leave(
        self, requester: Requester, room_id: RoomID, reason: str | None, *, must_leave: bool = False
    ) -> str:
        """Leave a room, reject an invite or take back a knock; the ID of the member event.

        Parameters: `must_leave`, for an account that is closed.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` for somebody who never was there, or is banned;
                `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM` for the invite to the server's notices.
        """

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            if membership == "leave":
                return None
            if membership is None:
                raise errors.forbidden("You are not in this room.")
            if membership == "invite" and is_notices and not must_leave:
                raise errors.MatrixError(
                    403,
                    "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM",
                    "The invite to the server's notices cannot be rejected.",
                )
            return {**_reason(reason), "membership": "leave"}

        if requester.is_shadow_banned:
            reason = None  # They may go, but say nothing by it.
        notices = await self._db.read(notice_rooms.room_of, requester.user_id)
        is_notices = notices == room_id

        found = await self._standing(room_id, requester.user_id)
        if found.is_ours:
            return await self._change(requester.user_id, room_id, requester.user_id, decide)
        if found.own is None or found.own.membership == "ban":
            raise errors.forbidden("You are not in this room.")
        if found.own.membership not in ("invite", "knock"):
            return ""
        leaving = {**_reason(reason), "membership": "leave"}
        return await self._others.leave(found.own, room_id, leaving)

    async def kick(
        self, requester: Requester, room_id: RoomID, target: UserID, reason: str | None
    ) -> str:
        """Remove somebody; the ID of the member event.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` without the right, or if the target is not there.
        """

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            if membership not in ("join", "invite", "knock"):
                raise errors.forbidden(f"{target} is not in the room.")
            return {**_reason(reason), "membership": "leave"}

        return await self._change(
            requester.user_id, room_id, target, decide, pretend=requester.is_shadow_banned
        )

    async def ban(
        self, requester: Requester, room_id: RoomID, target: UserID, reason: str | None
    ) -> str:
        """Ban somebody; the ID of the member event. Raises MatrixError 403 `M_FORBIDDEN`."""

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            return {**_reason(reason), "membership": "ban"}

        return await self._change(
            requester.user_id, room_id, target, decide, pretend=requester.is_shadow_banned
        )

    async def unban(
        self, requester: Requester, room_id: RoomID, target: UserID, reason: str | None
    ) -> str:
        """Lift a ban; the ID of the member event.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` without the right, or if the target is not banned.
        """

        def decide(state: StateView, membership: str | None) -> JsonObject | None:
            if membership != "ban":
                raise errors.forbidden(f"{target} is not banned.")
            return {**_reason(reason), "membership": "leave"}

        return await self._change(
            requester.user_id, room_id, target, decide, pretend=requester.is_shadow_banned
        )

    async def set_member(
        self, requester: Requester, room_id: RoomID, target: UserID, content: JsonObject
    ) -> str:
        """Send an `m.room.member` event through the state endpoint; its ID.

        The checks are those of the membership endpoints; further keys of the content are kept.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 400 `M_BAD_JSON` for a bad membership.
        """
        membership = content.get("membership")
        if not isinstance(membership, str) or membership not in MEMBERSHIPS:
            raise errors.bad_json("`membership` must be one of " + ", ".join(MEMBERSHIPS) + ".")
        own = target == requester.user_id
        if membership in ("join", "knock") and not own:
            raise errors.forbidden(f"Nobody but {target} can do this.")
        if membership == "join":
            return await self.join(requester, room_id, content)
        if membership == "invite":
            return await self.invite(requester, room_id, target, content)
        if membership == "knock":
            return await self.knock(requester, room_id, content)
        if own and membership == "leave" and requester.is_shadow_banned:
            return await self.leave(requester, room_id, None)
        if own and membership == "leave":
            found = await self._standing(room_id, target)
            invited = found.own is not None and found.own.membership == "invite"
            if not found.is_ours or invited:
                reason = content.get("reason")
                return await self.leave(
                    requester, room_id, reason if isinstance(reason, str) else None
                )

        def decide(state: StateView, current: str | None) -> JsonObject | None:
            if membership == "leave" and not own and current not in ("join", "invite", "knock"):
                if current == "ban":
                    return _own_keys(content)
                raise errors.forbidden(f"{target} is not in the room.")
            return _own_keys(content)

        return await self._change(
            requester.user_id, room_id, target, decide, pretend=requester.is_shadow_banned
        )

    async def forget(self, user_id: UserID, room_id: RoomID) -> None:
        """Hide a left room and its history from the user.

        Raises:
            MatrixError: 400 `M_UNKNOWN` while the user is in the room; 404 `M_NOT_FOUND` if they
                never were.
        """
        await self._db.write(_forget, room_id, user_id)

    async def joined_rooms(self, user_id: UserID) -> list[str]:
        """IDs of the rooms that the user is in."""
        return await self._db.query(memberships.joined_room_ids, user_id)

    async def leave_all(self, user_id: UserID) -> None:
        """Leave all rooms and reject all invites of an account that was closed."""
        requester = Requester(user_id)
        for room_id in await self._db.read(_rooms_with, user_id, ("join", "invite", "knock")):
            try:
                await self.leave(requester, RoomID(room_id), None, must_leave=True)
            except errors.MatrixError:
                # Membership may have ended meanwhile; the others are left all the same.
                continue

    async def profile_changed(self, user_id: UserID, field: str) -> None:
        """Tell the user's rooms of a new display name or avatar ("Events on Change of Profile
        Information")."""
        if field not in ("displayname", "avatar_url"):
            return
        profile = await self._profile(user_id)
        if await self._db.read(users.is_shadow_banned, user_id):
            return
        for room_id in await self._db.read(_rooms_with, user_id, ("join",)):

            def decide(state: StateView, membership: str | None) -> JsonObject | None:
                current = state.get(MEMBER, user_id)
                if membership != "join" or current is None:
                    return None
                kept = {
                    key: value
                    for key, value in current.content.items()
                    if key not in ("displayname", "avatar_url", "reason", *_SERVER_KEYS)
                }
                return {**kept, **profile}

            try:
                await self._change(user_id, RoomID(room_id), user_id, decide)
            except errors.MatrixError:
                continue

    async def _change(
        self,
        sender: str,
        room_id: RoomID,
        target: str,
        decide: Decide,
        within: Callable[[Transaction, int, str], None] | None = None,
        *,
        pretend: bool = False,
    ) -> str:
        templates = _member_template(sender, target, decide)
        request = AppendRequest(room_id, templates, idempotent=True, within=within, pretend=pretend)
        done = await self._appender.append(request)
        return done.event_ids[0] if done.event_ids else ""

    async def _standing(self, room_id: str, user_id: str) -> Standing:
        return await self._db.read(standing, room_id, user_id)

    @property
    def _others(self) -> RemoteMembership:
        if self._remote is None:
            raise errors.not_found("This room is not known here.")
        return self._remote[0]

    async def _profile(self, user_id: str) -> JsonObject:
        if not user_id.endswith(":" + self._server_name):
            return {}
        return await self._db.read(_profile, user_id)


def _member_template(
    sender: str, target: str, decide: Decide
) -> Callable[[StateView], Sequence[EventTemplate]]:
    def templates(state: StateView) -> Sequence[EventTemplate]:
        if sender != target and not _is_joined(state, sender):
            # Before anything is said of the target, whom outsiders must not learn of.
            raise errors.forbidden("You are not in this room.")
        current = state.get(MEMBER, target)
        content = decide(state, current.membership if current is not None else None)
        if content is None:
            return []
        return [EventTemplate(MEMBER, sender, content, target)]

    return templates


def _own_keys(content: JsonObject) -> JsonObject:
    return {key: value for key, value in content.items() if key not in _SERVER_KEYS}


def _reason(reason: str | None) -> JsonObject:
    return {} if reason is None else {"reason": reason}


def _is_joined(state: StateView, user_id: str) -> bool:
    own = state.get(MEMBER, user_id)
    return own is not None and own.membership == "join"


def _guests_may_join(state: StateView) -> bool:
    access = state.get("m.room.guest_access")
    return access is not None and access.content.get("guest_access") == "can_join"


def _profile(txn: Transaction, user_id: str) -> JsonObject:
    found = profiles.get_profiles(txn, [user_id], ["displayname", "avatar_url"])
    return dict(found.get(user_id, {}))


def _rooms_with(txn: Transaction, user_id: str, wanted: Sequence[str]) -> list[str]:
    rows = memberships.of_user(txn, user_id, wanted)
    found = rooms.get_many(txn, [row.room_nid for row in rows])
    return [found[row.room_nid].room_id for row in rows if row.room_nid in found]


def _forget(txn: Transaction, room_id: str, user_id: str) -> None:
    room_nid = rooms.nid(txn, room_id)
    row = memberships.get(txn, room_nid, user_id) if room_nid is not None else None
    if room_nid is None or row is None:
        raise errors.not_found("You never were in this room.")
    if row.membership not in ("leave", "ban"):
        raise errors.unknown("Leave the room before you forget it.")
    memberships.forget(txn, room_nid, user_id)
    txn.notify(f"user:{user_id}")
