"""Invites that other servers send to users of this one, and their end.

Server-server API, "Inviting to a room", "Leaving Rooms (Rejecting Invites)". This server is
mostly not in the room, and cannot judge whether the sender may invite: it sees to it that the
invite is what it says, signs it, and tells the user.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from twisted.internet.interfaces import IReactorTime

from federation.client.pdus import PduChecker
from homeserver.core import canonical, errors
from homeserver.core.client_format import strip_pdu, stripped_state
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.ids import RoomID, domain_of
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms import blocking, invite_blocking, resident
from homeserver.rooms.build import LocalSigner
from homeserver.rooms.handshake import MEMBER, checked, parse_user, with_signature
from homeserver.rooms.receive import Receiver
from homeserver.rooms.remote_record import OutsideMember, OutsideRecords, ResidentHere
from homeserver.rooms.server_access import check_acl
from storage import memberships, rooms, users
from storage.database import Database
from storage.events import ACCEPTED
from storage.transaction import Transaction

MAX_ROOM_STATE = 100
"""Events that may describe a room."""
MAX_ROOM_STATE_BYTES = 512 * 1024
"""Of their stripped form."""

_CREATE = ("m.room.create", "")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a server sends.

    Parameters: `room_state` describes the room; anything may be in it.
    """

    room_id: str
    event_id: str
    event: JsonObject
    room_state: Any


class ReceivedInvites:
    """Takes invites for users of this server, and their withdrawal."""

    def __init__(
        self,
        db: Database,
        receiver: Receiver,
        checker: PduChecker,
        records: OutsideRecords,
        signer: LocalSigner,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._receiver = receiver
        self._checker = checker
        self._records = records
        self._signer = signer
        self._clock = clock
        self.meet: Callable[[str], Awaitable[object]] | None = None
        """Has application services make a user of this server that there is not."""

    async def receive_v1(self, origin: str, invitation: Invitation) -> JsonObject:
        """As `receive`, for an invite to a room of version 1 or 2: it does not say of which."""
        version = await self._db.read(_old_version, invitation)
        return await self.receive(origin, version, invitation)

    async def receive(self, origin: str, version_id: str, invitation: Invitation) -> JsonObject:
        """Take an invite; the event with this server's signature, once the user can see it.

        Raises:
            MatrixError: 400 `M_INCOMPATIBLE_ROOM_VERSION`; 400 `M_INVALID_PARAM` for what is not
                an invite of a user of this server by one of the asking server, or not correctly
                signed or described; 403 `M_FORBIDDEN`, `M_INVITE_BLOCKED`; 404 `M_NOT_FOUND` for
                a user who does not exist.
        """
        version = ROOM_VERSIONS.get(version_id)
        if version is None:
            raise resident.incompatible_version(version_id)
        user_id = self._check_invite(origin, invitation.event)
        if self.meet is not None:
            await self.meet(user_id)
        is_here = await self._db.read(_check_invitee, origin, invitation, version_id, user_id)
        pdu = {key: value for key, value in invitation.event.items() if key != "unsigned"}
        pdu = with_signature(pdu, version, self._signer)
        event = await checked(self._checker, pdu, version, invitation.room_id, invitation.event_id)
        stripped = await self._describe(invitation, version)
        await self._store(event, [*stripped, stripped_state(event)], is_here)
        return {**invitation.event, "signatures": pdu["signatures"]}

    async def withdrawn(self, origin: str, event: Event) -> bool:
        """Take the end of an invite or a knock from the server that invited, or that was asked.

        Parameters: `event`, a checked member event of a room that this server is not in.

        Returns whether it changed anything. An event counts only if it names the invite or the
        knock that it ends: what came before that is old.
        """
        target = event.state_key or ""
        is_end = event.type == MEMBER and event.membership in ("leave", "ban")
        if not is_end or domain_of(target) != self._signer.server_name:
            return False
        done = await self._db.write(self._withdraw, origin, event, self._now_ms())
        if done:
            _log.info("invite withdrawn", room=event.room_id, user=target, by=event.sender)
        return done

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)

    def _check_invite(self, origin: str, pdu: JsonObject) -> str:
        """The user whom an event invites, if it invites one."""
        content = pdu.get("content")
        if pdu.get("type") != MEMBER or not isinstance(content, dict):
            raise errors.invalid_param("This is not a member event.")
        if content.get("membership") != "invite":
            raise errors.invalid_param("The membership of the event is not 'invite'.")
        if parse_user(pdu.get("sender"), "sender").domain != origin:
            raise errors.invalid_param(f"The sender of the event is not a user of {origin}.")
        target = parse_user(pdu.get("state_key"), "state_key")
        if target.domain != self._signer.server_name:
            raise errors.invalid_param(f"{target} is not a user of this server.")
        return target

    async def _describe(self, invitation: Invitation, version: RoomVersion) -> list[JsonObject]:
        """The stripped state that the inviting server describes the room with."""
        given = invitation.room_state
        if given is None:
            given = []
        if not isinstance(given, list) or len(given) > MAX_ROOM_STATE:
            raise errors.invalid_param("`invite_room_state` is not a list of state events.")
        try:
            await self._verify(given, version, invitation.room_id)
        except MatrixError as problem:
            if version.strict_stripped_state:
                raise
            # Older servers describe rooms by events without signatures.
            _log.info("invite badly described", room=invitation.room_id, reason=problem.error)
        own = (MEMBER, invitation.event["state_key"])
        stripped = [
            strip_pdu(entry)
            for entry in given
            if _is_stripped_state(entry)
            and entry.get("room_id", invitation.room_id) == invitation.room_id
            and (entry["type"], entry["state_key"]) != own
        ]
        try:
            size = len(canonical.encode_lenient({"s": stripped}))
        except canonical.CanonicalJSONError as problem:
            raise errors.invalid_param(str(problem))
        if size > MAX_ROOM_STATE_BYTES:
            raise errors.invalid_param("`invite_room_state` is too large.")
        return stripped

    async def _verify(self, given: Sequence[Any], version: RoomVersion, room_id: str) -> None:
        """Raise MatrixError unless these are signed events of the room, its first among them."""
        found = await self._checker.check(given, version, room_id=room_id)
        creates = False
        for result in found:
            if result.event is None:
                raise errors.invalid_param(f"`invite_room_state`: {result.error}")
            creates = creates or result.event.is_create
        if not creates:
            raise errors.invalid_param("`invite_room_state` has no create event.")

    async def _store(self, event: Event, stripped: Sequence[JsonObject], is_here: bool) -> None:
        if not is_here:
            member = OutsideMember(event, stripped)
            try:
                await self._db.write(self._records.record, member, self._now_ms())
                return
            except ResidentHere:
                pass  # Somebody joined meanwhile.
        judged = (await self._receiver.add(event.room_id, [event]))[event.event_id]
        if judged.missing_prev or judged.missing_auth:
            # It comes again with a transaction, and then what is missing is asked for.
            return
        if judged.status != ACCEPTED:
            raise errors.forbidden(judged.reason or "The rules of the room forbid this.")

    def _withdraw(self, txn: Transaction, origin: str, event: Event, now_ms: int) -> bool:
        room_nid = rooms.nid(txn, event.room_id)
        row = memberships.get(txn, room_nid, event.state_key or "") if room_nid else None
        if room_nid is None or row is None or row.membership not in ("invite", "knock"):
            return False
        if row.event_id not in event.auth_event_ids:
            return False
        if not {origin, domain_of(event.sender)} & _trusted(row, event.room_id):
            return False
        try:
            return bool(self._records.record(txn, OutsideMember(event), now_ms))
        except ResidentHere:
            return False


def _check_invitee(
    txn: Transaction, origin: str, invitation: Invitation, version_id: str, user_id: str
) -> bool:
    """Whether this server is in the room. Refuse an invite that the user must not get."""
    user = users.get_user(txn, user_id)
    if user is None:
        raise errors.not_found(f"{user_id} does not exist.")
    if user.deactivated:
        raise errors.forbidden(f"The account of {user_id} is closed.")
    blocking.check(txn, invitation.room_id)
    invite_blocking.check(txn, user_id, str(invitation.event["sender"]))
    room = rooms.get(txn, invitation.room_id)
    if room is None or room.state_root is None:
        return False
    if room.version != version_id:
        raise errors.invalid_param(f"The room has version {room.version!r}.")
    if not resident.is_here(txn, room):
        return False
    check_acl(txn, room, origin)
    row = memberships.get(txn, room.room_nid, user_id)
    if row is not None and row.membership in ("join", "ban"):
        raise errors.forbidden(f"{user_id} is in the room or banned from it.")
    return True


def _old_version(txn: Transaction, invitation: Invitation) -> str:
    """The version of a room that is version 1 or 2, from what is known or told of it."""
    room = rooms.get(txn, invitation.room_id)
    if room is not None and resident.is_here(txn, room):
        if not ROOM_VERSIONS[room.version].invite_v1_fallback:
            raise resident.incompatible_version(room.version)
        return room.version
    given = invitation.room_state if isinstance(invitation.room_state, list) else []
    for entry in given[:MAX_ROOM_STATE]:
        if _is_stripped_state(entry) and (entry["type"], entry["state_key"]) == _CREATE:
            named = entry["content"].get("room_version", "1")
            version = ROOM_VERSIONS.get(named) if isinstance(named, str) else None
            if version is not None and version.invite_v1_fallback:
                return version.identifier
    return "1"


def _is_stripped_state(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("content"), dict)
        and all(isinstance(entry.get(key), str) for key in ("type", "state_key", "sender"))
    )


def _trusted(row: memberships.MembershipRow, room_id: str) -> set[str]:
    """Servers that are believed when they end an invite or a knock.

    For an invite the inviter's. For a knock those of whom it is known that they are or were in
    the room: it is not known who took the knock in.
    """
    if row.membership == "invite":
        return {domain_of(row.sender)}
    found = {str(entry["sender"]) for entry in json.loads(row.stripped_state or "[]")}
    servers = {domain_of(sender) for sender in found if sender != row.user_id}
    home = RoomID(room_id).legacy_domain
    return servers | {home} if home is not None else servers
