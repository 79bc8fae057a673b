"""A test case with a room that another server is in."""

from __future__ import annotations

from typing import Any

from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import hash_and_sign_event
from storage import events, rooms, state
from storage.rooms import RoomRow
from storage.state import StateStore
from tests.support.asking import AskingServer
from tests.support.client import Answer
from tests.support.room_case import RoomTestCase
from tests.support.stored import put_event

EVENT = "/event/{}"
STATE, STATE_IDS, AUTH = "/state/{}", "/state_ids/{}", "/event_auth/{}/{}"
BACKFILL, MISSING, BY_TIME = "/backfill/{}", "/get_missing_events/{}", "/timestamp_to_event/{}"


class ServedCase(RoomTestCase):
    """A room of Alice's that another server is in."""

    async def begin(self, *, join: bool = True, **room: Any) -> None:
        await self.start(**room)
        self.other = await AskingServer.start(self.server)
        self.db = self.server.homeserver.db
        self.states = self.server.homeserver.services[StateStore]
        if join:
            self.joined = await self.other.membership(self.room_id)

    async def everything(self, event_id: str) -> list[Answer]:
        """The answers of all endpoints about one event of the room."""
        ask, room_id, query = self.other.get, self.room_id, {"event_id": event_id}
        return [
            await ask(EVENT, event_id),
            await ask(STATE, room_id, query=query),
            await ask(STATE_IDS, room_id, query=query),
            await ask(AUTH, room_id, event_id),
            await ask(BACKFILL, room_id, query={"v": event_id, "limit": 5}),
            await self.ask_missing([event_id]),
            await ask(BY_TIME, room_id, query={"ts": 0, "dir": "f"}),
        ]

    async def ask_missing(
        self, latest: list[str], earliest: list[str] | None = None, **body: Any
    ) -> Answer:
        body = {"latest_events": latest, "earliest_events": earliest or [], **body}
        return await self.other.post(MISSING, self.room_id, json=body)

    async def missing(
        self, latest: list[str], earliest: list[str] | None = None, **body: Any
    ) -> list[str]:
        """IDs of the missing events, in order."""
        status, answer = await self.ask_missing(latest, earliest, **body)
        self.assertEqual(status, 200, answer)
        return [self.id_of(pdu) for pdu in answer["events"]]

    async def backfill(self, *event_ids: str, limit: int = 10) -> list[str]:
        """IDs of the events that are served, in order."""
        query = {"v": list(event_ids), "limit": limit}
        status, answer = await self.other.get(BACKFILL, self.room_id, query=query)
        self.assertEqual(status, 200, answer)
        return [self.id_of(pdu) for pdu in answer["pdus"]]

    async def served(self, event_id: str) -> Any:
        """An event as it is served."""
        status, answer = await self.other.get(EVENT, event_id)
        self.assertEqual(status, 200, answer)
        (pdu,) = answer["pdus"]
        self.assertEqual(self.id_of(pdu), event_id)
        return pdu

    def id_of(self, pdu: Any) -> str:
        return Event.from_pdu(pdu, ROOM_VERSIONS["12"]).event_id

    async def row(self) -> RoomRow:
        row = await self.db.read(rooms.get, self.room_id)
        assert row is not None
        return row

    async def stored(self, event_id: str) -> Event:
        row = await self.db.read(events.get, event_id)
        assert row is not None
        return Event.from_json(row.json, ROOM_VERSIONS["12"], event_id)

    async def current(self) -> dict[tuple[str, str], str]:
        found = await self.db.read(state.current, (await self.row()).room_nid)
        return {key: row.event_id for key, row in found.items()}

    def made(self, prev: list[str], depth: int, auth: list[str], **pdu: Any) -> Event:
        """An event of Bob's, who is on the other server."""
        pdu = {
            "type": "m.room.message",
            "sender": self.other.user(),
            "room_id": self.room_id,
            "content": {"body": "from elsewhere"},
            "origin_server_ts": 1_700_000_000_000,
            "prev_events": prev,
            "auth_events": auth,
            "depth": depth,
            **pdu,
        }
        hash_and_sign_event(pdu, ROOM_VERSIONS["12"], self.other.name, self.other.key)
        return Event.from_pdu(pdu, ROOM_VERSIONS["12"])

    async def put_made(self, event: Event, **options: Any) -> str:
        """Store such an event after the current state."""
        now = await self.current()
        await self.db.write(put_event, self.states, self.room_id, event, now, **options)
        return event.event_id

    async def auth(self) -> list[str]:
        now = await self.current()
        return [now["m.room.power_levels", ""], self.joined]
