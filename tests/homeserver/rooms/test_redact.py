"""Redactions and what they do to stored events, on both databases."""

from __future__ import annotations

import json
import secrets
from typing import Any

from homeserver.core.errors import MatrixError
from homeserver.core.ids import EventID, RoomID
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.build import EventTemplate
from homeserver.web.request import Requester
from storage import memberships, state
from storage.events import TransactionKey
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, SERVER_NAME, RoomServices

_JOIN = {"membership": "join"}


@on_each_database
class RedactTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.rooms = RoomServices(await self.open())

    async def content(self, event_id: str) -> JsonObject:
        content: JsonObject = json.loads((await self.rooms.row(event_id)).json)["content"]
        return content

    async def shown(self, room_id: str, event_id: str, reader: str = ALICE) -> JsonObject:
        """The event as a client sees it."""
        row = await self.rooms.row(event_id)

        def read(txn: Transaction) -> list[JsonObject]:
            view = self.rooms.view(txn, room_id, reader)
            return view.render(view.visible([row]), 0)

        return (await self.rooms.db.read(read))[0]

    async def test_the_content_is_gone_from_the_database_in_every_version(self) -> None:
        """Shows SND-9."""
        for version in ROOM_VERSIONS:
            with self.subTest(version=version):
                room_id = await self.rooms.create(version=version)
                content = {
                    "body": "secret",
                    "url": "mxc://secret/secret",
                    "m.relates_to": {"rel_type": "m.thread", "event_id": "$root"},
                }
                event_id = await self.rooms.send(room_id, ALICE, content)
                redaction = await self.rooms.redact(room_id, ALICE, event_id, reason="why")
                row = await self.rooms.row(event_id)
                self.assertEqual(json.loads(row.json)["content"], {})
                self.assertEqual(row.redacted_by, redaction)
                self.assertIsNone(row.relates_to)
                self.assertIsNone(row.rel_type)
                self.assertFalse(row.contains_url)
                # The identity stays, and the event still is in its room.
                event = await self.rooms.event(event_id)
                self.assertEqual(event.sender, ALICE)
                shown = await self.shown(room_id, event_id)
                self.assertEqual(shown["content"], {})
                because = shown["unsigned"]["redacted_because"]
                self.assertEqual(because["event_id"], redaction)
                self.assertEqual(because["type"], "m.room.redaction")
                self.assertEqual(because["content"]["reason"], "why")
                self.assertEqual(because["redacts"], event_id)
                self.assertEqual(because["content"]["redacts"], event_id)

    async def test_redacted_state_keeps_its_place(self) -> None:
        """Shows SND-9."""
        room_id = await self.rooms.create()
        event_id = await self.rooms.set_state(room_id, ALICE, "m.room.topic", {"topic": "secret"})
        await self.rooms.redact(room_id, ALICE, event_id)
        row = await self.rooms.room(room_id)
        key = ("m.room.topic", "")
        found = await self.rooms.db.read(state.current, row.room_nid, [key])
        self.assertEqual(found[key].event_id, event_id)
        self.assertEqual(json.loads(found[key].json)["content"], {})

    async def test_a_redacted_join_is_a_join_without_a_name(self) -> None:
        """Shows SND-9."""
        room_id = await self.rooms.create()
        content = {"membership": "join", "displayname": "secret", "avatar_url": "mxc://a/b"}
        event_id = await self.rooms.set_state(room_id, BOB, "m.room.member", content, BOB)
        await self.rooms.redact(room_id, BOB, event_id)
        row = await self.rooms.room(room_id)
        member = await self.rooms.db.read(memberships.get, row.room_nid, BOB)
        assert member is not None
        self.assertEqual(member.membership, "join")
        self.assertIsNone(member.displayname)
        self.assertIsNone(member.avatar_url)
        self.assertEqual(await self.content(event_id), {"membership": "join"})
        await self.rooms.say(room_id, BOB)

    async def test_cached_state_follows_redactions(self) -> None:
        """Shows SND-9."""
        room_id = await self.rooms.create()
        event_id = await self.rooms.set_state(room_id, ALICE, "m.room.topic", {"topic": "secret"})
        await self.rooms.redact(room_id, ALICE, event_id)
        seen: list[Any] = []

        def look(view: Any) -> list[Any]:
            seen.append(view.get("m.room.topic").content)
            return []

        await self.rooms.append(room_id, look)
        self.assertEqual(seen, [{}])

    async def test_a_redaction_is_an_event_like_others(self) -> None:
        """Shows SND-9."""
        room_id = await self.rooms.create()
        event_id = await self.rooms.say(room_id)
        first = await self.rooms.redact(room_id, ALICE, event_id, reason="first")
        again = await self.rooms.redact(room_id, ALICE, event_id, reason="again")
        self.assertEqual((await self.rooms.row(event_id)).redacted_by, first)
        await self.rooms.redact(room_id, ALICE, first)
        self.assertNotIn("reason", await self.content(first))
        self.assertIn("reason", await self.content(again))
        # Its target stays redacted.
        self.assertEqual(await self.content(event_id), {})

    async def test_who_may_redact(self) -> None:
        """Shows SND-7."""
        room_id = await self.rooms.create(joined=[BOB, CAROL])
        for sender, target, allowed in (
            (BOB, BOB, True),
            (CAROL, BOB, False),
            (BOB, ALICE, False),
            (ALICE, BOB, True),
        ):
            event_id = await self.rooms.say(room_id, target, "text")
            with self.subTest(sender=sender, target=target):
                if allowed:
                    await self.rooms.redact(room_id, sender, event_id)
                    self.assertEqual(await self.content(event_id), {})
                    continue
                with self.assertRaises(MatrixError) as caught:
                    await self.rooms.redact(room_id, sender, event_id)
                self.assertEqual(caught.exception.errcode, "M_FORBIDDEN")
                self.assertEqual((await self.content(event_id))["body"], "text")

    async def test_the_redact_level_decides(self) -> None:
        """Shows SND-7."""
        room_id = await self.rooms.create(joined=[BOB])
        event_id = await self.rooms.say(room_id, ALICE, "text")
        await self.rooms.set_state(
            room_id, ALICE, "m.room.power_levels", {"users": {BOB: 30}, "redact": 31}
        )
        with self.assertRaises(MatrixError):
            await self.rooms.redact(room_id, BOB, event_id)
        await self.rooms.set_state(
            room_id, ALICE, "m.room.power_levels", {"users": {BOB: 31}, "redact": 31}
        )
        await self.rooms.redact(room_id, BOB, event_id)
        self.assertEqual(await self.content(event_id), {})

    async def test_server_administrators_redact_events_of_local_users(self) -> None:
        """Shows SND-7."""
        room_id = await self.rooms.create(joined=[BOB])
        event_id = await self.rooms.say(room_id, ALICE, "text")
        await self.rooms.sending.redact(
            Requester(BOB, "D", is_admin=True),
            room_id,
            EventID(event_id),
            {},
            TransactionKey("D", f"redact/{event_id}", "t"),
        )
        self.assertEqual(await self.content(event_id), {})

    async def test_the_create_event_cannot_be_redacted(self) -> None:
        """Shows SND-7."""
        room_id = await self.rooms.create()
        create = (await self.rooms.log(room_id))[0]
        with self.assertRaises(MatrixError) as caught:
            await self.rooms.redact(room_id, ALICE, create.event_id)
        self.assertEqual(caught.exception.errcode, "M_FORBIDDEN")

    async def test_not_across_rooms(self) -> None:
        """Shows SND-8."""
        room_id = await self.rooms.create()
        other = await self.rooms.create()
        event_id = await self.rooms.say(room_id, body="text")
        with self.assertRaises(MatrixError) as caught:
            await self.rooms.redact(other, ALICE, event_id)
        self.assertEqual(caught.exception.errcode, "M_INVALID_PARAM")
        # Nor if such an event gets into the room on another way.
        await self._redaction_event(other, event_id)
        self.assertEqual((await self.content(event_id))["body"], "text")
        self.assertIsNone((await self.rooms.row(event_id)).redacted_by)

    async def _redaction_event(self, room_id: str, redacts: str, sender: str = ALICE) -> str:
        template = EventTemplate("m.room.redaction", sender, {}, redacts=redacts)
        return (await self.rooms.append(room_id, [template])).event_ids[0]

    def choose_next_id(self, name: str) -> str:
        """Make the next event of a room of version 1 have a known ID."""
        self.patch(secrets, "token_urlsafe", lambda _: name)
        return f"${name}0:{SERVER_NAME}"

    async def test_of_an_event_not_known_yet(self) -> None:
        """Shows SND-8."""
        for version in ("1", "2"):
            room_id = await self.rooms.create(version=version)
            future = f"$future{version}0:{SERVER_NAME}"
            redaction = await self.rooms.redact(room_id, ALICE, future)
            self.assertEqual(self.choose_next_id(f"future{version}"), future)
            event_id = await self.rooms.say(room_id, body="secret")
            self.assertEqual(event_id, future)
            row = await self.rooms.row(event_id)
            self.assertEqual(row.redacted_by, redaction)
            self.assertEqual(json.loads(row.json)["content"], {})
            self.unpatch()

    def unpatch(self) -> None:
        self.patch(secrets, "token_urlsafe", _token_urlsafe)

    async def test_of_itself(self) -> None:
        """Shows SND-8."""
        room_id = await self.rooms.create(version="1")
        own = self.choose_next_id("own")
        event_id = await self._redaction_event(room_id, own)
        self.assertEqual(event_id, own)
        self.assertIsNone((await self.rooms.row(own)).redacted_by)

    async def test_of_each_other(self) -> None:
        """Shows SND-8."""
        room_id = await self.rooms.create(version="1")
        second = f"$second0:{SERVER_NAME}"
        first = await self._redaction_event(room_id, second)
        self.choose_next_id("second")
        self.assertEqual(await self._redaction_event(room_id, first), second)
        self.assertIsNone((await self.rooms.row(first)).redacted_by)
        self.assertIsNone((await self.rooms.row(second)).redacted_by)

    async def test_one_held_does_not_reach_into_another_room(self) -> None:
        """Shows SND-8."""
        room_id = await self.rooms.create(version="1")
        other = await self.rooms.create(version="1")
        future = f"$future0:{SERVER_NAME}"
        await self._redaction_event(other, future)
        self.choose_next_id("future")
        self.assertEqual(await self.rooms.say(room_id, body="text"), future)
        self.assertEqual((await self.content(future))["body"], "text")

    async def test_the_level_counts_that_the_sender_had_then(self) -> None:
        """Shows SND-7."""
        room_id = await self.rooms.create(version="11")
        await self.rooms.append(room_id, [EventTemplate("m.room.member", BOB, _JOIN, BOB)])
        levels = {"users": {ALICE: 100, BOB: 50}}
        await self.rooms.set_state(room_id, ALICE, "m.room.power_levels", levels)
        event_id = await self.rooms.say(room_id, ALICE, body="text")
        # A redaction, and in the same transaction the end of the right to redact.
        await self.rooms.append(
            room_id,
            [
                EventTemplate("m.room.redaction", BOB, {}, redacts=event_id),
                EventTemplate("m.room.power_levels", BOB, {"users": {ALICE: 100}}, ""),
            ],
        )
        self.assertEqual(await self.content(event_id), {})

    async def test_outside_the_room(self) -> None:
        """Shows SND-12."""
        room_id = await self.rooms.create()
        event_id = await self.rooms.say(room_id, body="text")
        with self.assertRaises(MatrixError) as caught:
            await self.rooms.redact(RoomID(room_id), BOB, event_id)
        self.assertEqual(caught.exception.errcode, "M_FORBIDDEN")


_token_urlsafe = secrets.token_urlsafe
