from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core.redaction import redact, redact_content
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject

QUICK = settings(max_examples=150, deadline=None)

ALWAYS = {
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
}
UNTIL_10 = {"prev_state", "origin", "membership"}
NEVER = {"unsigned", "redacts", "age", "org.example.extra"}
LEVELS = {
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
}
# Type → kept keys of content by version, as runs: the first version that has each set.
KEPT: dict[str, dict[int, set[str]]] = {
    "m.room.member": {
        1: {"membership"},
        9: {"membership", "join_authorised_via_users_server"},
        11: {"membership", "join_authorised_via_users_server", "third_party_invite"},
    },
    "m.room.create": {
        1: {"creator"},
        11: {"creator", "room_version", "m.federate", "additional_creators", "other"},
    },
    "m.room.join_rules": {1: {"join_rule"}, 8: {"join_rule", "allow"}},
    "m.room.power_levels": {1: LEVELS, 11: LEVELS | {"invite"}},
    "m.room.aliases": {1: {"aliases"}, 6: set()},
    "m.room.history_visibility": {1: {"history_visibility"}},
    "m.room.redaction": {1: set(), 11: {"redacts"}},
    "m.room.message": {1: set()},
    "m.room.topic": {1: set()},
}
OFFERED: dict[str, JsonObject] = {
    "m.room.member": {
        "membership": "join",
        "join_authorised_via_users_server": "@a:b",
        "third_party_invite": {"display_name": "x", "signed": {"token": "t"}},
        "displayname": "x",
        "reason": "y",
    },
    "m.room.create": {
        "creator": "@a:b",
        "room_version": "1",
        "m.federate": True,
        "additional_creators": [],
        "other": 1,
    },
    "m.room.join_rules": {"join_rule": "invite", "allow": [], "other": 1},
    "m.room.power_levels": {key: {} for key in [*LEVELS, "invite", "notifications", "other"]},
    "m.room.aliases": {"aliases": [], "other": 1},
    "m.room.history_visibility": {"history_visibility": "shared", "other": 1},
    "m.room.redaction": {"redacts": "$x", "reason": "spam"},
    "m.room.message": {"body": "x", "membership": "join", "creator": "@a:b"},
    "m.room.topic": {"topic": "x"},
}


class RedactionTest(TestCase):
    def test_top_level(self) -> None:
        """Shows EVT-1."""
        pdu: JsonObject = {key: {} for key in ALWAYS | UNTIL_10 | NEVER}
        for number in range(1, 13):
            expected = ALWAYS | UNTIL_10 if number < 11 else ALWAYS
            self.assertEqual(set(redact(pdu, ROOM_VERSIONS[str(number)])), expected, number)

    def test_content(self) -> None:
        """What each type keeps in each version, values unchanged. Shows EVT-1."""
        for event_type, runs in KEPT.items():
            content = OFFERED[event_type]
            expected: set[str] = set()
            for number in range(1, 13):
                expected = runs.get(number, expected)
                redacted = redact_content(event_type, content, ROOM_VERSIONS[str(number)])
                self.assertEqual(set(redacted), expected, f"{event_type} in version {number}")
                for key in expected - {"third_party_invite"}:
                    self.assertEqual(redacted[key], content[key])

    def test_third_party_invite(self) -> None:
        """Version 11 keeps only what is signed of a third-party invite."""
        for offered, kept in (
            ({"signed": {"token": "t"}, "display_name": "x"}, {"signed": {"token": "t"}}),
            ({"display_name": "x"}, None),
            ("text", None),
        ):
            content = {"membership": "invite", "third_party_invite": offered}
            redacted = redact_content("m.room.member", content, ROOM_VERSIONS["11"])
            self.assertEqual(redacted.get("third_party_invite"), kept)

    def test_original_stays(self) -> None:
        pdu = {"type": "m.room.member", "content": OFFERED["m.room.member"], "unsigned": {}}
        before = copy.deepcopy(pdu)
        for version in ROOM_VERSIONS.values():
            redacted = redact(pdu, version)
            redacted["content"]["membership"] = "ban"
            self.assertEqual(pdu, before)

    @QUICK
    @given(
        st.sampled_from([*KEPT, "org.example.type", ""]),
        st.dictionaries(
            st.sampled_from(sorted({key for keys in OFFERED.values() for key in keys}))
            | st.text(max_size=5),
            st.none() | st.integers() | st.text(max_size=5) | st.just({"signed": {}, "x": 1}),
        ),
        st.dictionaries(
            st.sampled_from(sorted(ALWAYS | UNTIL_10 | NEVER - {"type", "content"})), st.integers()
        ),
        st.sampled_from(sorted(ROOM_VERSIONS)),
    )
    def test_idempotent(
        self, event_type: str, content: JsonObject, top_level: dict[str, Any], identifier: str
    ) -> None:
        version = ROOM_VERSIONS[identifier]
        pdu = {**top_level, "type": event_type, "content": content}
        once = redact(pdu, version)
        self.assertEqual(redact(once, version), once)
        self.assertLessEqual(set(once["content"]), set(content))
