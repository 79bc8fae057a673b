from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core import canonical
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, V1, V5, V10, V11, V12
from homeserver.core.signing import event_id_for
from homeserver.core.types import JsonObject


def pdu(**changes: Any) -> JsonObject:
    return {
        "type": "m.room.message",
        "room_id": "!r:a.example",
        "sender": "@u:a.example",
        "origin_server_ts": 1000,
        "depth": 3,
        "prev_events": ["$p1", "$p2"],
        "auth_events": ["$a"],
        "content": {"body": "hello"},
        "hashes": {"sha256": "x"},
        "signatures": {},
        **changes,
    }


class EventTest(TestCase):
    def test_message(self) -> None:
        event = Event.from_pdu(pdu(), V11)
        self.assertEqual(event.event_id, event_id_for(pdu(), V11))
        self.assertEqual(
            (event.type, event.room_id, event.sender, event.origin_server_ts, event.depth),
            ("m.room.message", "!r:a.example", "@u:a.example", 1000, 3),
        )
        self.assertEqual(event.content, {"body": "hello"})
        self.assertEqual((event.prev_event_ids, event.auth_event_ids), (("$p1", "$p2"), ("$a",)))
        self.assertIsNone(event.state_key)
        self.assertFalse(event.is_state)
        self.assertIsNone(event.membership)
        self.assertIsNone(event.redacts)
        with self.assertRaises(KeyError):
            _ = event.key

    def test_state(self) -> None:
        """An empty state key is one."""
        event = Event.from_pdu(pdu(type="m.room.topic", state_key=""), V11)
        self.assertTrue(event.is_state)
        self.assertEqual(event.key, ("m.room.topic", ""))
        self.assertFalse(event.is_create)

    def test_references_by_version(self) -> None:
        """Versions 1 and 2 name events in pairs, and carry their own ID. Shows EVT-1."""
        pair = ["$p:a.example", {"sha256": "x"}]
        old = Event.from_pdu(
            pdu(event_id="$e:a.example", prev_events=[pair], auth_events=[pair, pair]), V1
        )
        self.assertEqual(old.event_id, "$e:a.example")
        self.assertEqual(old.prev_event_ids, ("$p:a.example",))
        self.assertEqual(old.auth_event_ids, ("$p:a.example", "$p:a.example"))
        # a later version pays no heed to an event_id that somebody wrote in
        new = Event.from_pdu(pdu(event_id="$e:a.example"), V12)
        self.assertNotEqual(new.event_id, "$e:a.example")

    def test_redacts_by_version(self) -> None:
        """Only the place that the version names counts. Shows EVT-1."""
        both = pdu(type="m.room.redaction", redacts="$top", content={"redacts": "$content"})
        for version in ROOM_VERSIONS.values():
            event = Event.from_pdu(both, version, "$e")
            self.assertEqual(event.redacts, "$content" if version.redacts_in_content else "$top")
        for broken in (
            pdu(type="m.room.redaction"),
            pdu(redacts="$x"),
            pdu(content={"redacts": 1}),
        ):
            for version in (V10, V11):
                self.assertIsNone(Event.from_pdu(broken, version, "$e").redacts)

    def test_create_event_of_version_12(self) -> None:
        """The room ID is the event ID with the other sigil. Shows EVT-1, ID-8."""
        create = pdu(type="m.room.create", state_key="", prev_events=[], auth_events=[])
        del create["room_id"]
        event = Event.from_pdu(create, V12)
        self.assertTrue(event.is_create)
        self.assertEqual(event.room_id, "!" + event.event_id[1:])
        self.assertEqual(len(event.room_id), 44)

    def test_membership(self) -> None:
        member = pdu(type="m.room.member", state_key="@u:a.example", content={"membership": "ban"})
        self.assertEqual(Event.from_pdu(member, V12).membership, "ban")
        member["content"] = {"membership": 1}
        self.assertIsNone(Event.from_pdu(member, V12).membership)
        self.assertIsNone(Event.from_pdu(pdu(content={"membership": "join"}), V12).membership)

    def test_from_json(self) -> None:
        """A stored event is the same event, read from text or bytes."""
        for version in ROOM_VERSIONS.values():
            original = Event.from_pdu(pdu(prev_events=[], auth_events=[]), version, "$e")
            text = original.to_json()
            for stored in (text, text.decode()):
                read = Event.from_json(stored, version, "$e")
                self.assertEqual(read.to_json(), text)
                self.assertEqual(read.pdu, original.pdu)
                self.assertEqual(read.to_json(), text)
                self.assertEqual(read, original)

    def test_read_at_once_for_the_rules(self) -> None:
        """What is read of the text at once is what is read of the parsed form. Shows EVT-1."""
        names = [name for name in Event.__slots__ if not name.startswith("_") and name != "key"]
        member = {"membership": "join", "displayname": "\u00e9\u2028"}
        for version in ROOM_VERSIONS.values():
            pairs = version.event_format == 1
            for each in (
                pdu(),
                pdu(type="m.room.member", state_key="@u:a.example", content=member),
                pdu(type="m.room.member", state_key="@u:a.example", content={"membership": 1}),
                pdu(type="m.room.create", state_key="", room_id=None, auth_events=[]),
                pdu(state_key=None, auth_events=None, prev_events=[]),
                # What nobody should have let in is read as it always was.
                pdu(origin_server_ts="late", state_key=5),
            ):
                for name in ("auth_events", "prev_events") if pairs else ():
                    each[name] = [[event_id, {"sha256": "x"}] for event_id in each[name] or ()]
                plain = Event.from_pdu(each, version, "$e")
                read = Event.for_rules(plain.to_json(), version, "$e")
                for name in names:
                    self.assertEqual(getattr(read, name), getattr(plain, name), name)
                if "state_key" in each:
                    self.assertEqual(read.key, plain.key)
                else:
                    with self.assertRaises(KeyError):
                        _ = read.key
                self.assertEqual(read.to_json(), plain.to_json())
                self.assertEqual(read.pdu, plain.pdu)

    def test_numbers_of_lenient_versions(self) -> None:
        """Integers beyond 64 bits and floats come back from storage. Shows EVT-1."""
        content = {"big": 2**70, "float": 1.5}
        event = Event.from_pdu(pdu(content=content), V5)
        read = Event.from_json(event.to_json(), V5, event.event_id)
        self.assertEqual(read.content, content)
        self.assertIs(type(read.content["big"]), int)
        self.assertEqual(event_id_for(read.pdu, V5), event.event_id)
        with self.assertRaises(canonical.CanonicalJSONError):
            Event.from_pdu(pdu(depth=2**70), V12)

    def test_redacted(self) -> None:
        event = Event.from_pdu(pdu(unsigned={"x": 1}), V12)
        redacted = event.redacted()
        self.assertEqual((redacted.event_id, redacted.content), (event.event_id, {}))
        self.assertNotIn("unsigned", redacted.pdu)
        self.assertEqual(event.content, {"body": "hello"})

    def test_identity(self) -> None:
        one, same = Event.from_pdu(pdu(), V12, "$a"), Event.from_pdu(pdu(), V12, "$a")
        other = Event.from_pdu(pdu(), V12, "$b")
        self.assertEqual(len({one, same, other}), 2)
        self.assertNotEqual(one, "$a")
        self.assertIn("$a", repr(one))
        with self.assertRaises(AttributeError):
            one.anything = 1  # type: ignore[attr-defined]
