"""Other servers' users join, leave and knock through this server.

Server-server API, "Joining Rooms", "Leaving Rooms", "Knocking upon a room". A handshake has two
steps: this server makes a template of the member event on the room's newest state, and takes the
event that the other server made of it. The second does not trust the first: everything is judged
anew, by the event alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from federation.client.pdus import PduChecker
from homeserver.core import canonical, errors, event_format, signing
from homeserver.core.event import Event
from homeserver.core.ids import InvalidIdentifier, UserID, domain_of
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms import resident
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate, LocalSigner
from homeserver.rooms.receive import Receiver
from storage import memberships, room_servers
from storage.database import Database
from storage.events import ACCEPTED
from storage.transaction import Transaction

MEMBER = "m.room.member"
AUTHORISER = "join_authorised_via_users_server"


@dataclass(frozen=True, slots=True)
class Template:
    """A member event for another server to complete and sign."""

    room_version: str
    event: JsonObject


@dataclass(frozen=True, slots=True)
class Admitted:
    """A member event of another server that is in the room now.

    Parameters: `signed_here`, whether this server's signature was added to it; `servers`, those
    that were in the room before, this one first.
    """

    event: Event
    room_nid: int
    signed_here: bool
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Room:
    nid: int
    version: RoomVersion
    servers: tuple[str, ...]
    signs: bool
    """Whether this server is asked for its signature, and gives it."""


class Handshake:
    """Lets other servers' users into rooms, and out of them.

    Parameters: `checker` checks form and signatures of events; `signer`, this server's name and
    key.
    """

    def __init__(
        self,
        db: Database,
        appender: Appender,
        receiver: Receiver,
        checker: PduChecker,
        signer: LocalSigner,
    ) -> None:
        self._db = db
        self._appender = appender
        self._receiver = receiver
        self._checker = checker
        self._signer = signer

    async def make(
        self,
        origin: str,
        room_id: str,
        user_id: UserID,
        membership: str,
        versions: Collection[str] | None = None,
    ) -> Template:
        """The template of a user's own member event.

        Parameters: `versions`, the room versions that the asking server knows; None for all.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` for a user of another server, a denied server, or what
                the room's rules forbid; 404 `M_NOT_FOUND`; 400 `M_INCOMPATIBLE_ROOM_VERSION`;
                see also `resident.authorise`.
        """
        if user_id.domain != origin:
            raise errors.forbidden(f"{user_id} is not a user of {origin}.")
        authoriser = await self._db.read(
            _check_wish, origin, room_id, user_id, membership, versions
        )
        content: JsonObject = {"membership": membership}
        if authoriser is not None:
            content[AUTHORISER] = authoriser
        template = EventTemplate(MEMBER, str(user_id), content, str(user_id))
        pdu, version = await self._appender.template(room_id, template)
        return Template(version.identifier, pdu)

    async def send(
        self, origin: str, room_id: str, event_id: str, pdu: JsonObject, membership: str
    ) -> Admitted:
        """Take a user's own member event into the room, and have it sent to all servers there.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for an event that is not correctly signed or is not
                what the endpoint is for; 403 `M_FORBIDDEN` for one that the room's rules forbid;
                404 `M_NOT_FOUND`; see also `resident.authorise`.
        """
        user_id = check_own_membership(origin, pdu, membership)
        authoriser = pdu["content"].get(AUTHORISER) if membership == "join" else None
        asked = isinstance(authoriser, str) and domain_of(authoriser) == self._signer.server_name
        room = await self._db.read(
            _find_room, origin, room_id, user_id, asked, self._signer.server_name
        )
        pdu = {key: value for key, value in pdu.items() if key != "unsigned"}
        if room.signs:
            # Before the check, which asks for this signature too. Nobody sees it until then.
            pdu = with_signature(pdu, room.version, self._signer)
        event = await checked(self._checker, pdu, room.version, room_id, event_id)
        judged = (await self._receiver.add(room_id, [event], outgoing=True))[event.event_id]
        if judged.missing_prev or judged.missing_auth:
            raise errors.invalid_param("The event names events that are not known here.")
        if judged.status != ACCEPTED:
            raise errors.forbidden(judged.reason or "The rules of the room forbid this.")
        return Admitted(event, room.nid, room.signs, room.servers)


def check_own_membership(origin: str, pdu: JsonObject, membership: str) -> UserID:
    """The user whose own member event of this membership a server sends.

    Raises:
        MatrixError: 400 `M_INVALID_PARAM` for any other event.
    """
    content = pdu.get("content")
    if pdu.get("type") != MEMBER or not isinstance(content, dict):
        raise errors.invalid_param("This is not a member event.")
    if content.get("membership") != membership:
        raise errors.invalid_param(f"The membership of the event is not {membership!r}.")
    sender = parse_user(pdu.get("sender"), "sender")
    if pdu.get("state_key") != sender:
        raise errors.invalid_param("The event is about somebody other than its sender.")
    if sender.domain != origin:
        raise errors.invalid_param(f"The sender of the event is not a user of {origin}.")
    return sender


def parse_user(value: Any, name: str) -> UserID:
    """The user ID in a key of an event. Raises MatrixError 400 `M_INVALID_PARAM`."""
    try:
        return UserID.parse(value if isinstance(value, str) else "")
    except InvalidIdentifier as problem:
        raise errors.invalid_param(f"{name!r} is no user ID: {problem.reason}.")


def with_signature(pdu: JsonObject, version: RoomVersion, signer: LocalSigner) -> JsonObject:
    """The event with this server's signature added to those that it bears.

    Raises:
        MatrixError: 400 `M_INVALID_PARAM` if it has not the form of an event.
    """
    try:
        event_format.check_pdu(pdu, version)
        signed = {**pdu, "signatures": {**pdu["signatures"]}}
        own = signed["signatures"].get(signer.server_name, {})
        signed["signatures"][signer.server_name] = dict(own)
        signing.sign_event(signed, version, signer.server_name, signer.key)
    except (event_format.EventFormatError, canonical.CanonicalJSONError) as problem:
        raise errors.invalid_param(str(problem))
    return signed


async def checked(
    checker: PduChecker, pdu: JsonObject, version: RoomVersion, room_id: str, event_id: str
) -> Event:
    """The event that a server sends in a handshake: of this room and ID, and whole.

    Raises:
        MatrixError: 400 `M_INVALID_PARAM`.
    """
    (result,) = await checker.check([pdu], version, room_id=room_id)
    if result.event is None:
        raise errors.invalid_param(result.error or "The event is refused.")
    if result.event.event_id != event_id:
        raise errors.invalid_param("The event has another ID than the one in the path.")
    if not signing.content_hash_matches(pdu, version):
        raise errors.invalid_param("The content hash of the event is wrong.")
    return result.event


def _check_wish(
    txn: Transaction,
    origin: str,
    room_id: str,
    user_id: str,
    membership: str,
    versions: Collection[str] | None,
) -> str | None:
    """The local user to name in a join to a restricted room; None if there need be none."""
    room, version = resident.resident_room(txn, room_id, origin)
    if versions is not None and version.identifier not in versions:
        raise resident.incompatible_version(version.identifier)
    _refuse_banned(txn, room.room_nid, user_id)
    if membership == "join" and resident.needs_authoriser(txn, room, version, user_id):
        return resident.authorise(txn, room, version, user_id)
    return None


def _find_room(
    txn: Transaction, origin: str, room_id: str, user_id: str, asked: bool, own_name: str
) -> _Room:
    room, version = resident.resident_room(txn, room_id, origin)
    _refuse_banned(txn, room.room_nid, user_id)
    signs = asked and version.restricted_joins
    if signs and resident.needs_authoriser(txn, room, version, user_id):
        # What was true when the template was made need not be true any more, or was never asked.
        resident.authorise(txn, room, version, user_id)
    servers = (own_name, *room_servers.of_room(txn, room.room_nid))
    return _Room(room.room_nid, version, servers, signs)


def _refuse_banned(txn: Transaction, room_nid: int, user_id: str) -> None:
    row = memberships.get(txn, room_nid, user_id)
    if row is not None and row.membership == "ban":
        raise errors.forbidden(f"{user_id} is banned from this room.")
