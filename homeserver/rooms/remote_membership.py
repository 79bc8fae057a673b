"""Memberships of this server's users in rooms of which it has no say of its own.

Joins, knocks, and the end of invites and knocks in rooms that this server is not in: other servers
put the events into the rooms (Server-Server API, "Joining Rooms" and following).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import BadAnswer, RemoteError
from federation.client.membership import MembershipCalls, Template
from federation.client.pdus import PduChecker
from homeserver.core import errors, signing
from homeserver.core.client_format import strip_pdu, stripped_state
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.build import EventTemplate, LocalSigner, Place, build_event
from homeserver.rooms.remote_attempts import Attempts, candidates, usable
from homeserver.rooms.remote_event import MEMBER, WantedMember, sign_template
from homeserver.rooms.remote_inviters import remote_inviters
from homeserver.rooms.remote_join import RemoteJoins, WantedJoin
from homeserver.rooms.remote_record import OutsideMember, OutsideRecords, ResidentHere
from storage import events, memberships, rooms
from storage.database import Database
from storage.memberships import MembershipRow
from storage.rooms import RoomRow
from storage.transaction import Transaction

MAX_ROOM_STATE = 100
"""Events that may describe a room to somebody who knocked."""

LEAVE_S = 20.0
"""How long other servers are asked to take an invite or a knock back before it is dropped."""

_STRIPPED_KEYS = {"type": str, "state_key": str, "sender": str, "content": dict}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """What this server has to do with a room, and one of its users with it."""

    room: RoomRow | None
    is_resident: bool
    """A user of this server is joined."""
    own: MembershipRow | None

    @property
    def is_joined(self) -> bool:
        """Whether the user is in the room."""
        return self.own is not None and self.own.membership == "join"

    @property
    def is_ours(self) -> bool:
        """Whether this server may change the room by itself: it is in it, or nobody else is."""
        if self.is_resident:
            return True
        room = self.room
        return room is not None and room.state_root is not None and room.remote_servers == 0


def standing(txn: Transaction, room_id: str, user_id: str) -> Standing:
    """See `Standing`."""
    room = rooms.get(txn, room_id)
    if room is None:
        return Standing(None, False, None)
    own = memberships.get(txn, room.room_nid, user_id)
    is_resident = own is not None and own.membership == "join"
    if not is_resident and room.remote_servers:
        is_resident = bool(memberships.local_joined(txn, room.room_nid))
    return Standing(room, is_resident, own)


class RemoteMembership:
    """Changes memberships through other servers."""

    def __init__(
        self,
        db: Database,
        joins: RemoteJoins,
        calls: MembershipCalls,
        checker: PduChecker,
        records: OutsideRecords,
        signer: LocalSigner,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._joins = joins
        self._calls = calls
        self._checker = checker
        self._records = records
        self._signer = signer
        self._clock = clock

    async def join(
        self, user_id: str, room_id: str, content: JsonObject, via: Sequence[str]
    ) -> str | None:
        """Join a room that this server is not in; the ID of the join event, or None if it is in
        by now. See `RemoteJoins.join`.

        Parameters: `content`, of the member event; `via`, servers that may be in the room.
        """
        servers = await self._candidates(room_id, user_id, via)
        return await self._joins.join(WantedJoin(user_id, room_id, content, servers))

    async def join_authorised(self, user_id: str, room_id: str, content: JsonObject) -> str | None:
        """Join a restricted room that this server is in, but nobody here may let the user in.

        Returns None where other servers cannot help either.
        """
        servers = await self._db.read(remote_inviters, room_id, user_id)
        servers = usable(servers, self._signer.server_name)
        if not servers:
            return None
        return await self._joins.join(WantedJoin(user_id, room_id, content, servers, True))

    async def knock(
        self, user_id: str, room_id: str, content: JsonObject, via: Sequence[str]
    ) -> str:
        """Knock on a room that this server is not in; the ID of the member event.

        Raises:
            MatrixError: as `RemoteJoins.join`.
        """
        attempts = Attempts()
        wanted = WantedMember(room_id, user_id, content)
        for server in await self._candidates(room_id, user_id, via):
            try:
                template = await self._calls.make_knock(
                    server, room_id, user_id, [n for n, v in ROOM_VERSIONS.items() if v.knocking]
                )
                event = await self._sign(template, wanted, server)
                given = await self._calls.send_knock(server, room_id, event.event_id, event.pdu)
            except RemoteError as error:
                attempts.failed(error)
                if attempts.is_refused:
                    break
                continue
            described = await self._described(given, event)
            await self._record(OutsideMember(event, [*described, stripped_state(event)]))
            return event.event_id
        raise attempts.error()

    async def leave(self, own: MembershipRow, room_id: str, content: JsonObject) -> str:
        """Reject an invite or take back a knock, with the servers that know of it if they can be
        reached; the ID of the member event.

        Parameters: `own`, the invite or the knock; `content`, of the member event.
        """
        asking = Deferred.fromCoroutine(self._leave_there(own, room_id, content))
        asking.addTimeout(LEAVE_S, self._clock)
        try:
            event = await asking
        except (MatrixError, DeferredTimeout) as problem:
            _log.info(
                "An invite or a knock is dropped here only",
                room_id=room_id,
                user_id=own.user_id,
                reason=str(problem) or "no answer in time",
            )
            event = await self._db.read(self._leave_here, own, room_id, content)
        await self._record(OutsideMember(event))
        return event.event_id

    async def _leave_there(self, own: MembershipRow, room_id: str, content: JsonObject) -> Event:
        """Have another server put the leave into the room. Raises MatrixError."""
        attempts = Attempts()
        wanted = WantedMember(room_id, own.user_id, content)
        for server in usable(_servers_of(own), self._signer.server_name)[:3]:
            try:
                template = await self._calls.make_leave(server, room_id, own.user_id)
                event = await self._sign(template, wanted, server)
                await self._calls.send_leave(server, room_id, event.event_id, event.pdu)
            except RemoteError as error:
                attempts.failed(error)
                continue
            return event
        raise attempts.error()

    def _leave_here(
        self, txn: Transaction, own: MembershipRow, room_id: str, content: JsonObject
    ) -> Event:
        """A leave that no other server hears of."""
        room, row = rooms.get(txn, room_id), events.get(txn, own.event_id)
        if room is None or row is None:
            raise errors.not_found("This room is not known here.")
        version = ROOM_VERSIONS[room.version]
        ended = Event.from_json(row.json, version, row.event_id)
        hashes = {}
        if version.event_format == 1:
            digest = signing.reference_hash(ended.pdu, version)
            hashes[ended.event_id] = signing.encode_base64(digest)
        place = Place(
            room_id,
            version,
            [ended.event_id],
            ended.depth + 1,
            [ended.event_id],
            hashes,
            f"${secrets.token_hex(12)}:{self._signer.server_name}"
            if version.event_format == 1
            else None,
        )
        template = EventTemplate(MEMBER, own.user_id, content, own.user_id)
        return build_event(template, place, self._signer, self._now_ms())

    async def _candidates(self, room_id: str, user_id: str, via: Sequence[str]) -> list[str]:
        own_name = self._signer.server_name
        return await self._db.read(candidates, room_id, user_id, via, own_name)

    async def _sign(self, template: Template, wanted: WantedMember, server: str) -> Event:
        version = ROOM_VERSIONS.get(template.room_version)
        if version is None:
            raise BadAnswer(server, f"unknown room version {template.room_version[:50]!r}")
        known = await self._db.read(rooms.get, wanted.room_id)
        # Of a room without a state only an invite told, which may have lied.
        is_sure = known is not None and known.state_root is not None
        if known is not None and is_sure and known.version != version.identifier:
            raise BadAnswer(server, f"the room is of version {known.version}")
        return sign_template(
            template.event,
            wanted,
            version,
            self._signer,
            server,
            self._now_ms(),
            secrets.token_hex(12),
        )

    async def _described(self, given: Sequence[Any], knock: Event) -> list[JsonObject]:
        """The stripped state out of `knock_room_state`, without what is badly signed."""
        given = given[:MAX_ROOM_STATE]
        checked = await self._checker.check(given, knock.version, room_id=knock.room_id)
        found = []
        for pdu, result in zip(given, checked, strict=True):
            if result.event is not None and result.event.is_state:
                found.append(stripped_state(result.event))
            elif _is_unsigned_state(pdu) and not knock.version.strict_stripped_state:
                # Older servers describe rooms by stripped events, which nobody can check.
                found.append(strip_pdu(pdu))
        return found

    async def _record(self, member: OutsideMember) -> None:
        try:
            await self._db.write(self._records.record, member, self._now_ms())
        except ResidentHere:
            # Somebody joined meanwhile: the event comes with the others of the room.
            return

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)


def _servers_of(own: MembershipRow) -> list[str]:
    """Servers that know of an invite or a knock."""
    described = json.loads(own.stripped_state or "[]")
    senders = [own.sender, *(entry["sender"] for entry in described)]
    return [domain_of(sender) for sender in senders]


def _is_unsigned_state(pdu: Any) -> bool:
    return (
        isinstance(pdu, dict)
        and "signatures" not in pdu
        and all(isinstance(pdu.get(key), kind) for key, kind in _STRIPPED_KEYS.items())
    )
