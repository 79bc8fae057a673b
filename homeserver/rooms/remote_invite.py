"""Inviting users of other servers (Server-Server API, "Inviting to a room")."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError
from federation.client.keyring import Keyring
from federation.client.membership import MembershipCalls
from homeserver.core import errors, signing
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.append import Appender
from homeserver.rooms.projection import STRIPPED_TYPES
from homeserver.rooms.receive import Receiver
from homeserver.rooms.remote_attempts import client_error
from homeserver.rooms.remote_event import MEMBER, with_signatures
from homeserver.rooms.requests import AppendRequest
from storage import rooms, state
from storage.database import Database
from storage.events import ACCEPTED
from storage.transaction import Transaction

MAX_SIGNATURES = 10
"""Signatures of the invited user's server that are looked at."""


class RemoteInvites:
    """Invites users of other servers, whose servers sign the invites."""

    def __init__(
        self,
        db: Database,
        appender: Appender,
        receiver: Receiver,
        calls: MembershipCalls,
        keyring: Keyring,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._appender = appender
        self._receiver = receiver
        self._calls = calls
        self._keyring = keyring
        self._clock = clock

    async def invite(self, request: AppendRequest) -> str:
        """Send an invite; its event ID.

        Parameters: `request`, of one member event with the membership `invite`.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` where the rules of the room forbid it; what the invited
                user's server said, where that tells the user something; 502 `M_UNKNOWN` if it
                cannot be reached or did not sign the invite.
        """
        event = await self._appender.propose(request)
        server = domain_of(event.state_key or "")
        room_state = await self._db.read(_room_state, event.room_id, event.sender)
        try:
            returned = await self._calls.invite(
                server, event.room_id, event.event_id, event.pdu, event.version, room_state
            )
        except RemoteError as problem:
            raise client_error(problem)
        signed = await self._signed(event, returned, server)
        judged = (await self._receiver.add(event.room_id, [signed], outgoing=True))[event.event_id]
        if judged.status != ACCEPTED:
            raise errors.forbidden(judged.reason or "The room changed meanwhile.")
        return event.event_id

    async def _signed(self, event: Event, returned: JsonObject, server: str) -> Event:
        """The invite with the signature of the invited user's server."""
        pdu, now_ms = with_signatures(event, returned, server), int(self._clock.seconds() * 1000)
        key_ids = list(signing.signatures_of(pdu, server))[:MAX_SIGNATURES]
        found = await self._keyring.lookup(
            {(server, key_id): event.origin_server_ts for key_id in key_ids}
        )
        keys = {key_id: key for (_, key_id), key in found.items()}
        try:
            signing.verify_event(pdu, event.version, server, keys, now_ms)
        except signing.SignatureError as problem:
            raise errors.unknown(f"{server} did not sign the invite: {problem}", 502)
        return Event.from_pdu(pdu, event.version, event.event_id)


def _room_state(txn: Transaction, room_id: str, sender: str) -> list[JsonObject]:
    """The events that describe a room to an invited user, in federation form."""
    room = rooms.get(txn, room_id)
    if room is None:
        return []
    version = ROOM_VERSIONS[room.version]
    keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_TYPES]
    rows = state.current(txn, room.room_nid, [*keys, (MEMBER, sender)])
    return [Event.from_json(row.json, version, row.event_id).pdu for row in rows.values()]
