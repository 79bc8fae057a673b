"""Rooms through the services, without the API: for tests of how events are written and read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor as installed_reactor

from homeserver.core.event import Event
from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import SigningKey, generate_signing_key
from homeserver.core.types import JsonObject
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate, LocalSigner
from homeserver.rooms.create import InitialState, RoomCreation, WantedRoom
from homeserver.rooms.membership import Membership
from homeserver.rooms.requests import Appended, AppendRequest
from homeserver.rooms.restricted import RestrictedJoins
from homeserver.rooms.send import Sending
from homeserver.rooms.unread import Crowds
from homeserver.rooms.view import RoomView
from homeserver.web.request import Requester
from storage import events, rooms
from storage.database import Database
from storage.events import COLUMNS, EventRow, TransactionKey
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

reactor: Any = installed_reactor
SERVER_NAME = "hearth.test"
ALICE = UserID(f"@alice:{SERVER_NAME}")
BOB = UserID(f"@bob:{SERVER_NAME}")
CAROL = UserID(f"@carol:{SERVER_NAME}")
KEY: SigningKey = generate_signing_key("test", b"k" * 32)


class RoomServices:
    """The services that change rooms, as one process has them.

    `groups` are sizes of commits; `ways`, how many requests went which way.
    """

    def __init__(self, db: Any) -> None:
        self.db: Database = db
        self.states = StateStore()
        self.groups: list[int] = []
        self.ways: Counter[str] = Counter()
        self.appender = Appender(
            db,
            LocalSigner(SERVER_NAME, KEY),
            reactor,
            self.states,
            Crowds(),
            observe=self._committed,
        )
        restricted = RestrictedJoins(db, SERVER_NAME)
        self.members = Membership(db, self.appender, restricted, SERVER_NAME)
        self.aliases = Aliases(db, self.appender, SERVER_NAME)
        self.sending = Sending(db, self.appender, self.members, self.aliases)
        self.creation = RoomCreation(db, self.appender, self.members, SERVER_NAME, "12")
        self._txns = itertools.count(1)

    def _committed(self, requests: int, way: str) -> None:
        self.ways[way] += requests
        if way != "missed":
            self.groups.append(requests)

    async def create(
        self,
        creator: UserID = ALICE,
        version: str = "12",
        *,
        preset: str = "public_chat",
        state: Sequence[InitialState] = (),
        joined: Sequence[UserID] = (),
    ) -> RoomID:
        """A new room with members."""
        wanted = WantedRoom(room_version=version, preset=preset, initial_state=state)
        room_id = RoomID(await self.creation.create(Requester(creator), wanted))
        for user_id in joined:
            await self.members.join(Requester(user_id), room_id)
        return room_id

    async def say(self, room_id: str, sender: str = ALICE, body: str = "hello") -> str:
        """Send a text message; its ID."""
        return await self.send(room_id, sender, {"msgtype": "m.text", "body": body})

    async def send(
        self,
        room_id: str,
        sender: str,
        content: JsonObject,
        event_type: str = "m.room.message",
        *,
        transaction: TransactionKey | None = None,
    ) -> str:
        """Send a message event; its ID."""
        template = EventTemplate(event_type, sender, content)
        return (await self.append(room_id, [template], transaction=transaction)).event_ids[0]

    async def set_state(
        self,
        room_id: str,
        sender: str,
        event_type: str,
        content: JsonObject,
        state_key: str = "",
    ) -> str:
        """Send a state event; its ID."""
        template = EventTemplate(event_type, sender, content, state_key)
        return (await self.append(room_id, [template])).event_ids[0]

    async def append(self, room_id: str, templates: Any, **options: Any) -> Appended:
        """Append events to a room."""
        return await self.appender.append(AppendRequest(room_id, templates, **options))

    async def redact(self, room_id: str, sender: UserID, event_id: str, **content: Any) -> str:
        """Redact an event; the redaction's ID."""
        return await self.sending.redact(
            Requester(sender, "DEVICE"),
            RoomID(room_id),
            EventID(event_id),
            content,
            TransactionKey("DEVICE", f"redact/{event_id}", f"r{next(self._txns)}"),
        )

    async def room(self, room_id: str) -> RoomRow:
        """The room's row."""
        row = await self.db.read(rooms.get, room_id)
        assert row is not None
        return row

    async def log(self, room_id: str) -> list[EventRow]:
        """All events of the room, in order of position."""

        def read(txn: Transaction) -> list[EventRow]:
            return [
                EventRow(*raw)
                for raw in txn.all(
                    f"SELECT {COLUMNS} FROM events WHERE room_nid ="
                    " (SELECT room_nid FROM rooms WHERE room_id = ?) ORDER BY pos",
                    (room_id,),
                )
            ]

        return await self.db.read(read)

    async def row(self, event_id: str) -> EventRow:
        """An event as stored."""
        row = await self.db.read(events.get, event_id)
        assert row is not None
        return row

    async def event(self, event_id: str) -> Event:
        """An event."""

        def read(txn: Transaction) -> Event:
            row = events.get(txn, event_id)
            assert row is not None
            room = rooms.get_many(txn, [row.room_nid])[row.room_nid]
            return Event.from_json(row.json, ROOM_VERSIONS[room.version], event_id)

        return await self.db.read(read)

    def view(
        self, txn: Transaction, room_id: str, reader: str, device: str | None = None
    ) -> RoomView:
        """The room as one reader sees it."""
        row = rooms.get(txn, room_id)
        assert row is not None
        return RoomView(txn, self.states, row, reader, device)
