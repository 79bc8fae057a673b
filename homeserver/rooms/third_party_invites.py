"""Invites to an address that turned out to be somebody's.

Server-server API, "Third-party invites". An identity server tells the server of the user whom an
address is bound to; that server asks the inviter's; and that one makes a real invite of the
`m.room.third_party_invite` in the room, if the identity server's signature is one of its keys'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from federation.client.errors import RemoteError
from federation.client.membership import MembershipCalls
from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms import resident
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.handshake import MEMBER, parse_user
from homeserver.rooms.requests import AppendRequest
from storage import state, users
from storage.database import Database
from storage.transaction import Transaction

THIRD_PARTY = "m.room.third_party_invite"
MAX_INVITES = 50
"""Invites that an address may have gathered."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PendingInvite:
    """An invite that waited for its address to be bound.

    Parameters: `sender` made it; `signed` is what the identity server says of the binding.
    """

    room_id: RoomID
    sender: UserID
    signed: JsonObject


class RemoteInviter(Protocol):
    """Invites users of other servers: their server signs first."""

    async def invite(self, request: AppendRequest) -> str:
        """The ID of the invite that is the request's only event. Raises MatrixError."""


class ThirdPartyInvites:
    """Turns them into invites.

    Parameters: `calls` asks inviters' servers; `inviter` invites users of other servers.
    """

    def __init__(
        self,
        db: Database,
        appender: Appender,
        calls: MembershipCalls,
        inviter: RemoteInviter,
        server_name: str,
    ) -> None:
        self._db = db
        self._appender = appender
        self._calls = calls
        self._inviter = inviter
        self._server_name = server_name

    async def exchange(self, origin: str, room_id: RoomID, pdu: JsonObject) -> None:
        """Make an invite of a third-party invite, for a user of the asking server.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for anything else; 403 `M_FORBIDDEN` if no key of
                the third-party invite has signed, or the room's rules forbid it; 404
                `M_NOT_FOUND` where this server is not in the room.
        """
        if pdu.get("type") != MEMBER or pdu.get("room_id", room_id) != room_id:
            raise errors.invalid_param("This is no member event of the room.")
        content = pdu.get("content")
        if not isinstance(content, dict) or content.get("membership") != "invite":
            raise errors.invalid_param("This is no invite.")
        target = parse_user(pdu.get("state_key"), "state_key")
        if target.domain != origin:
            raise errors.invalid_param(f"{target} is not a user of {origin}.")
        sender = parse_user(pdu.get("sender"), "sender")
        if sender.domain != self._server_name:
            raise errors.invalid_param(f"{sender} is not a user of this server.")
        invite = content.get("third_party_invite")
        signed = invite.get("signed") if isinstance(invite, dict) else None
        await self._invite(
            origin, PendingInvite(room_id, sender, check_signed(signed, target)), target
        )

    async def bound(self, user_id: UserID, invites: Sequence[PendingInvite]) -> None:
        """A third-party address is now that of a user of this server: exchange its invites.

        One that fails keeps none of the others.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM`; 404 `M_NOT_FOUND` for a user who does not exist;
                502 `M_UNKNOWN` or the refusal itself if no invite could be exchanged.
        """
        if user_id.domain != self._server_name:
            raise errors.invalid_param(f"{user_id} is not a user of this server.")
        if len(invites) > MAX_INVITES:
            raise errors.invalid_param("These are too many invites.")
        if not await self._db.read(_is_active, user_id):
            raise errors.not_found(f"{user_id} does not exist.")
        for invite in invites:
            check_signed(invite.signed, user_id)
        problem: MatrixError | None = None
        failures = 0
        for invite in invites:
            try:
                await self._exchange_own(user_id, invite)
            except MatrixError as refusal:
                problem = refusal
            except RemoteError as failure:
                problem = errors.unknown(str(failure), 502)
            else:
                continue
            failures += 1
            _log.info(
                "third-party invite failed",
                user=user_id,
                room=invite.room_id,
                by=invite.sender,
                reason=problem.error,
            )
        if problem is not None and failures == len(invites):
            raise problem

    async def _exchange_own(self, user_id: UserID, invite: PendingInvite) -> None:
        destination = invite.sender.domain
        if destination == self._server_name:
            await self._invite(self._server_name, invite, user_id)
            return
        pdu = {
            "type": MEMBER,
            "room_id": str(invite.room_id),
            "sender": str(invite.sender),
            "state_key": str(user_id),
            # The inviter's server knows the name that the inviter saw, and puts it there.
            "content": _content(invite, str(user_id)),
        }
        await self._calls.exchange_third_party_invite(destination, invite.room_id, pdu)

    async def _invite(self, origin: str, invite: PendingInvite, target: UserID) -> None:
        original = await self._db.read(_original, origin, invite)
        name = original.get("display_name")
        content = _content(invite, name if isinstance(name, str) else str(target))
        template = EventTemplate(MEMBER, str(invite.sender), content, str(target))
        request = AppendRequest(invite.room_id, [template], idempotent=True)
        if target.domain != self._server_name:
            await self._inviter.invite(request)
        else:
            await self._appender.append(request)


def check_signed(signed: Any, user_id: str) -> JsonObject:
    """Return `signed`, but refuse what an identity server cannot have said of this user.

    Raises:
        MatrixError: 400 `M_INVALID_PARAM`.
    """
    if not isinstance(signed, dict) or not isinstance(signed.get("token"), str):
        raise errors.invalid_param("The third-party invite has no `signed` with a token.")
    if signed.get("mxid") != user_id:
        raise errors.invalid_param("The third-party invite is signed for another user.")
    return signed


def _content(invite: PendingInvite, display_name: str) -> JsonObject:
    # All of `signed`: whatever it holds is signed.
    return {
        "membership": "invite",
        "third_party_invite": {"display_name": display_name, "signed": dict(invite.signed)},
    }


def _original(txn: Transaction, origin: str, invite: PendingInvite) -> JsonObject:
    """The content of the `m.room.third_party_invite` that the invite goes back to."""
    room, _ = resident.resident_room(txn, invite.room_id, origin)
    key = (THIRD_PARTY, str(invite.signed["token"]))
    row = state.current(txn, room.room_nid, [key]).get(key)
    if row is None or row.sender != invite.sender:
        raise errors.forbidden("The room has no such third-party invite of this user.")
    return resident.content_of(row.json)


def _is_active(txn: Transaction, user_id: str) -> bool:
    user = users.get_user(txn, user_id)
    return user is not None and not user.deactivated
