"""The client form put together from text against the general way, over random events."""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core import canonical
from homeserver.core.client_format import to_client
from homeserver.core.client_text import JOINED, client_form, opening, transaction
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject

ROUNDS = 150
ROOM = '!room "\\:é:a.example'
_TEXTS = ["", "plain", 'quo"te', "back\\slash", "\u2028\n\t\x01", "éü", "𝕏 𐍈", "a/b", "\x7f"]
_TYPES = ["m.room.message", "m.room.member", 'x."y"', "m.room.redaction", "m.reaction", "ü"]


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int, lenient: bool) -> Any:
        kinds = ["text", "int", "bool", "null"] + ["list", "dict"] * (depth > 0)
        kind = self.random.choice(kinds + ["float", "large"] * lenient)
        match kind:
            case "text":
                return self.random.choice(_TEXTS)
            case "int":
                return self.random.randint(-(2**53) + 1, 2**53 - 1)
            case "bool":
                return self.random.random() < 0.5
            case "list":
                return [self.value(depth - 1, lenient) for _ in range(self.random.randint(0, 3))]
            case "dict":
                return self.content(depth - 1, lenient)
            case "float":
                return self.random.choice([0.5, 1e300, -1.25e-7])
            case "large":
                return self.random.randint(2**64, 2**80)
        return None

    def content(self, depth: int, lenient: bool) -> JsonObject:
        keys = [*_TEXTS, "redacts", "membership", "msc4354_sticky"]
        chosen = self.random.sample(keys, self.random.randint(0, 4))
        return {key: self.value(depth, lenient) for key in chosen}

    def pdu(self, version: RoomVersion) -> JsonObject:
        chance = self.random.random
        lenient = not version.strict_canonical_json
        pdu: JsonObject = {
            "type": self.random.choice(_TYPES),
            "sender": self.random.choice(["@a:a.example", '@"\\é:b.example']),
            "origin_server_ts": self.random.choice([0, 1, 1_700_000_000_000, 2**53 - 1, -5]),
            "depth": 3,
            "prev_events": ["$p"],
            "auth_events": [],
            "content": self.content(3, lenient),
            "hashes": {"sha256": "x"},
            "signatures": {"a.example": {"ed25519:1": "x"}},
            "room_id": ROOM,
        }
        if chance() < 0.4:
            pdu["state_key"] = self.random.choice(_TEXTS)
        if chance() < 0.3:
            pdu["redacts"] = "$other"
        if chance() < 0.1:
            pdu["msc4354_sticky"] = {"duration_ms": 5000}
        if chance() < 0.3:
            pdu["unsigned"] = self.content(1, lenient)
        return pdu


class ClientTextTest(TestCase):
    def test_equals_the_general_way(self) -> None:
        taken = 0
        for name, version in ROOM_VERSIONS.items():
            maker = _Maker(hash_of(name))
            for _ in range(ROUNDS):
                taken += self._compare(maker, version)
        self.assertGreater(taken, ROUNDS * len(ROOM_VERSIONS) // 2)

    def _compare(self, maker: _Maker, version: RoomVersion) -> bool:
        chance = maker.random.random
        pdu = maker.pdu(version)
        text = Event.from_pdu(pdu, version, "$x").to_json()
        event_id = maker.random.choice(["$event", '$"ö\\:a.example'])
        replaces = "$old" if chance() < 0.3 else None
        stored: str | bytes = text if chance() < 0.5 else text.decode()
        form = client_form(stored, event_id, replaces_state=replaces)
        is_plain = pdu["type"] != "m.room.redaction" and "msc4354_sticky" not in pdu
        self.assertEqual(form is not None, is_plain, pdu)
        if form is None:
            return False
        room_id = ROOM if chance() < 0.5 else None
        joined = chance() < 0.5
        txn_id = maker.random.choice([None, "t1", 'q"'])
        now_ms = 1_700_000_100_000
        more = (JOINED if joined else b"") + (transaction(txn_id) if txn_id is not None else b"")
        spliced = b"%b%b%d%b%b" % (opening(room_id), form.head, now_ms - form.ts, more, form.tail)
        expected = to_client(
            Event.from_json(text, version, event_id),
            now_ms=now_ms,
            room_id=room_id is not None,
            membership="join" if joined else None,
            transaction_id=txn_id,
            replaces_state=replaces,
        )
        self.assertEqual(canonical.parse(spliced), expected)
        self.assertEqual(json.loads(spliced), expected)
        return True

    def test_what_is_no_event_of_ours_is_left_to_the_general_way(self) -> None:
        self.assertIsNone(client_form('{"type":"x","sender":"y","content":{}}', "$x"))
        text = '{"content":{},"origin_server_ts":1.5,"sender":"y","type":"x"}'
        self.assertIsNone(client_form(text, "$x"))

    def test_state_key_null_is_none(self) -> None:
        text = '{"content":{},"origin_server_ts":1,"sender":"y","state_key":null,"type":"x"}'
        form = client_form(text, "$x", replaces_state="$y")
        assert form is not None
        self.assertNotIn(b"state_key", form.head)
        self.assertNotIn(b"replaces_state", form.tail)


def hash_of(name: str) -> int:
    """The same in every run."""
    return sum(name.encode())
