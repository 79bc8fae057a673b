from __future__ import annotations

import copy
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.client_format import (
    membership_of,
    strip_pdu,
    stripped_state,
    to_client,
    to_federation,
)
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, V10, V12, RoomVersion
from homeserver.core.types import JsonObject

REMOTE_UNSIGNED = {
    "age": 1,
    "age_ts": 1,
    "membership": "join",
    "transaction_id": "forged",
    "prev_content": {"forged": True},
    "prev_sender": "@forged:x",
    "replaces_state": "$forged",
    "redacted_because": {"forged": True},
    "m.relations": {"forged": True},
    "org.example.anything": 1,
}


def event(version: RoomVersion = V12, **changes: Any) -> Event:
    pdu: JsonObject = {
        "type": "m.room.message",
        "room_id": "!r:a.example",
        "sender": "@u:a.example",
        "origin_server_ts": 1000,
        "depth": 3,
        "prev_events": [],
        "auth_events": [],
        "content": {"body": "hello"},
        "hashes": {"sha256": "x"},
        "signatures": {"a.example": {"ed25519:1": "x"}},
        **changes,
    }
    return Event.from_pdu(pdu, version, "$event")


def member(membership: Any) -> Event:
    content = {"membership": membership}
    return event(type="m.room.member", state_key="@u:a.example", content=content)


class ToClientTest(TestCase):
    def test_message(self) -> None:
        """Just the keys of a client event, nothing of federation. Shows EVT-13."""
        self.assertEqual(
            to_client(event()),
            {
                "event_id": "$event",
                "type": "m.room.message",
                "room_id": "!r:a.example",
                "sender": "@u:a.example",
                "origin_server_ts": 1000,
                "content": {"body": "hello"},
            },
        )
        self.assertNotIn("room_id", to_client(event(), room_id=False))
        self.assertEqual(to_client(event(state_key=""))["state_key"], "")

    def test_remote_unsigned_stays_out(self) -> None:
        """Nothing of another server's `unsigned` reaches a client. Shows EVT-13."""
        for version in ROOM_VERSIONS.values():
            for changes in ({}, {"state_key": ""}, {"type": "m.room.redaction"}):
                shown = to_client(event(version, unsigned=REMOTE_UNSIGNED, **changes))
                self.assertNotIn("unsigned", shown)
                shown = to_client(event(version, unsigned=REMOTE_UNSIGNED, **changes), now_ms=1500)
                self.assertEqual(shown["unsigned"], {"age": 500})

    def test_unsigned(self) -> None:
        """All of `unsigned`, from what this server gives. Shows EVT-13, EVT-15."""
        redaction = to_client(event(type="m.room.redaction", content={"redacts": "$event"}))
        shown = to_client(
            event(type="m.room.topic", state_key=""),
            now_ms=1500,
            membership="join",
            transaction_id="txn1",
            prev_content={"topic": "old"},
            replaces_state="$old",
            redacted_because=redaction,
            relations={"m.thread": {"count": 1}},
        )
        self.assertEqual(
            shown["unsigned"],
            {
                "age": 500,
                "membership": "join",
                "transaction_id": "txn1",
                "prev_content": {"topic": "old"},
                "replaces_state": "$old",
                "redacted_because": redaction,
                "m.relations": {"m.thread": {"count": 1}},
            },
        )

    def test_age_may_be_negative(self) -> None:
        """Shows EVT-13."""
        self.assertEqual(to_client(event(), now_ms=400)["unsigned"], {"age": -600})

    def test_transaction_id_only_when_given(self) -> None:
        """Other devices see the same event without it. Shows EVT-13."""
        one = event()
        own = to_client(one, now_ms=1500, transaction_id="txn1")
        self.assertEqual(own["unsigned"]["transaction_id"], "txn1")
        self.assertNotIn("transaction_id", to_client(one, now_ms=1500)["unsigned"])

    def test_membership(self) -> None:
        """The requester's membership at the event, `leave` if there is none. Shows EVT-14."""
        self.assertEqual(membership_of(None), "leave")
        for membership in ("join", "invite", "knock", "ban", "leave"):
            own = member(membership)
            self.assertEqual(membership_of(own), membership)
            # the change that the event itself makes is included
            shown = to_client(own, membership=membership_of(own))
            self.assertEqual(shown["unsigned"], {"membership": membership})
        self.assertEqual(membership_of(member(1)), "leave")

    def test_replaced_state(self) -> None:
        """`replaces_state` without `prev_content`, where that may not be seen. Shows EVT-15."""
        shown = to_client(event(state_key=""), replaces_state="$old")
        self.assertEqual(shown["unsigned"], {"replaces_state": "$old"})
        # an empty content is a content
        shown = to_client(event(state_key=""), replaces_state="$old", prev_content={})
        self.assertEqual(shown["unsigned"], {"replaces_state": "$old", "prev_content": {}})

    def test_messages_replace_nothing(self) -> None:
        """Only state events show what they replaced. Shows EVT-13, EVT-15."""
        shown = to_client(event(), replaces_state="$old", prev_content={})
        self.assertNotIn("unsigned", shown)

    def test_redactions(self) -> None:
        """`redacts` in both places in every version. Shows EVT-16."""
        for version in ROOM_VERSIONS.values():
            if version.redacts_in_content:
                redaction = event(
                    version, type="m.room.redaction", content={"redacts": "$x", "reason": "spam"}
                )
            else:
                redaction = event(
                    version, type="m.room.redaction", redacts="$x", content={"reason": "spam"}
                )
            before = copy.deepcopy(redaction.pdu)
            shown = to_client(redaction)
            self.assertEqual(shown["redacts"], "$x")
            self.assertEqual(shown["content"], {"redacts": "$x", "reason": "spam"})
            self.assertEqual(redaction.pdu, before)

    def test_forged_redacts(self) -> None:
        """What stands in the place of another version is not believed. Shows EVT-16."""
        shown = to_client(event(V12, type="m.room.redaction", redacts="$x", content={}))
        self.assertNotIn("redacts", shown)
        both = {"redacts": "$top", "content": {"redacts": "$content"}}
        shown = to_client(event(V10, type="m.room.redaction", **both))
        self.assertEqual((shown["redacts"], shown["content"]), ("$top", {"redacts": "$top"}))
        self.assertNotIn("redacts", to_client(event(V10, redacts="$x")))

    def test_create_event_of_version_12(self) -> None:
        """Its room ID is filled in. Shows ID-8."""
        create = event(V12, type="m.room.create", state_key="")
        del create.pdu["room_id"]
        self.assertEqual(to_client(create)["room_id"], "!event")
        self.assertNotIn("room_id", to_client(create, room_id=False))
        self.assertNotIn("room_id", create.pdu)

    def test_redacted_event(self) -> None:
        shown = to_client(event().redacted(), redacted_because={"type": "m.room.redaction"})
        self.assertEqual(shown["content"], {})
        self.assertEqual(shown["unsigned"], {"redacted_because": {"type": "m.room.redaction"}})


class FederationFormatTest(TestCase):
    def test_stored_form(self) -> None:
        """The federation form as stored, less what nobody signed. Shows EVT-17."""
        for version in ROOM_VERSIONS.values():
            original = event(version, redacts="$x", origin="a.example", state_key="")
            self.assertEqual(to_federation(original), original.pdu)
            forged = event(version, unsigned=REMOTE_UNSIGNED)
            self.assertEqual(to_federation(forged), event(version).pdu)
            self.assertIn("unsigned", forged.pdu)


class StrippedStateTest(TestCase):
    def test_keys(self) -> None:
        """Four keys, five in a hierarchy."""
        topic = event(type="m.room.topic", state_key="", content={"topic": "x"})
        stripped = {
            "type": "m.room.topic",
            "state_key": "",
            "sender": "@u:a.example",
            "content": {"topic": "x"},
        }
        self.assertEqual(stripped_state(topic), stripped)
        self.assertEqual(
            stripped_state(topic, origin_server_ts=True), {**stripped, "origin_server_ts": 1000}
        )
        self.assertEqual(strip_pdu({**stripped, "unsigned": {}, "extra": 1}), stripped)
        with self.assertRaises(KeyError):
            strip_pdu({"type": "x"})
