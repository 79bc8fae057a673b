"""Ordinary state events are read in one go, with what the general path says of them."""

from __future__ import annotations

import contextlib
import json
import random
import re
from typing import Any
from unittest.mock import patch

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from federation.client import pdus, plain_pdus
from homeserver.core import canonical
from homeserver.core.canonical import CanonicalJSONError, NotJSON
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import content_hash, encode_base64
from tests.support.events import RoomBuilder

PEER = "b.example"
ATTRIBUTES = (
    "auth_event_ids",
    "content",
    "depth",
    "is_create",
    "is_state",
    "key",
    "membership",
    "origin_server_ts",
    "prev_event_ids",
    "room_id",
    "sender",
    "state_key",
    "type",
)
STRICT = [version for version in ROOM_VERSIONS.values() if version.strict_canonical_json]

DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, -(2**70)),
    *(1.0, 1e300, 0.5, "", "x", "\0", "ä", "a\0b", "x" * 255, "x" * 256, "ä" * 130, "x" * 70_000),
    *([], {}, [1], ["$a"], ["$ä"], ["$"], ["a"], ["$a"] * 11, ["$a"] * 21, [["$a", {}]], [1.5]),
    *({"a": 1.0}, {"a": None}, {"sha256": 1}, {"sha256": "x"}, {PEER: {}}, {PEER: 1}),
    *("@a:b", "@a", "@ä:b", "@a:b:c", "!a:b", "!a", "!" + "x" * 260, "m.room.create", DEEP),
    *("m.room.member", "m.room.topic", "m.room.redaction", "$a", {"unsigned": {}}),
)
KEYS = (
    *("auth_events", "content", "depth", "hashes", "origin_server_ts", "prev_events", "room_id"),
    *("sender", "signatures", "state_key", "type", "unsigned", "redacts", "event_id", "origin"),
)
CONTENT = (
    *("membership", "displayname", "third_party_invite", "join_authorised_via_users_server"),
    *("users", "x", "reason"),
)


NEAR_TYPE = (
    *(b'"type": 5,', b'"typ\\u0065":"x",', b'"unsigned":{"age":1.5},', b'"unsigned":{"age":1},'),
    *(b'"origin":"x",', b'"origin":5,', b'"unsigned":{"a":9007199254740993},', b'"unsigned":[],'),
    b'"signatures":{"b.example":{"ed25519:x":"AAAA"}},',
)
NEAR_MEMBERSHIP = (
    *(b'"a":NaN,', b'"a":1e400,', b'"a":-0,', b'"a":-0.0,', b'"a":1E2,', b'"a":9007199254740992,'),
    *(
        b'"a":123456789012345678901234567890,',
        b'"a":"\\ud800",',
        b'"a":"\\ud83d\\ude00",',
        b'"":"",',
    ),
    *(
        b'"\\ud800":1,',
        b'"a":"\\u0000",',
        b'"a":"\\q",',
        b'"a":[1,],',
        b"'a':1,",
        b'"a":"\xed\xa0\x80",',
    ),
    *(
        b'"membership":"x",',
        b'"a\\/b":"\\/",',
        b'"a":01,',
        b'"a":+1,',
        b'"a":"\xff",',
        b'"a":"\x01",',
    ),
)


def changed(rng: random.Random, text: bytes) -> bytes:
    """The text of an event, written otherwise, or with something odd in it."""
    place = rng.randrange(len(text))
    match rng.randrange(8):
        case 0:
            number = rng.choice((rb"\1.0\2", rb"\1e0\2", rb"\1.\2", rb"0\1\2", rb"-\1\2"))
            return re.sub(rb"(\d+)([,}])", number, text, count=rng.randint(1, 3))
        case 1:
            return text[:place] + rng.choice((b"\n", b"\0", b"\x7f", b"\xff", b" ")) + text[place:]
        case 2:
            return text[:place] + text[place + 1 :]
        case 3:
            return text.replace(b"$", b"\\u0024", rng.randint(1, 3))
        case 4:
            return text + rng.choice((b" \r\n", b"x", b"}", b"\0", b","))
        case 5:
            return rng.choice((b" ", b"\xef\xbb\xbf", b"[")) + text
        case 6:
            return text.replace(b'"type"', rng.choice(NEAR_TYPE) + b'"type"')
        case _:
            return text.replace(b'"membership"', rng.choice(NEAR_MEMBERSHIP) + b'"membership"')


def said(text: Any, version: RoomVersion, room_id: str | None, is_new: bool) -> Any:
    """All that is known of an event after step 1; `text`, or the value itself."""
    given = Raw(text) if isinstance(text, bytes) else text
    checked, message, signatures, is_whole, _ = pdus._shape(given, version, room_id, is_new)
    event = checked.event
    shown: list[Any] = []
    if event is not None:
        names = [name for name in ATTRIBUTES if name != "key" or event.is_state]
        shown = [event.to_json(), [getattr(event, name) for name in names], event.pdu]
    by_key = sorted((server, dict(found)) for server, found in signatures)
    return [checked.event_id, checked.error, shown, message, by_key, is_whole]


def rehash(pdu: Any, version: RoomVersion) -> None:
    """Make the content hash right, if the event may have one."""
    hashes = pdu.get("hashes")
    if isinstance(hashes, dict):
        with contextlib.suppress(CanonicalJSONError):
            hashes["sha256"] = encode_base64(content_hash(pdu, version))


def state_of(version: RoomVersion) -> list[Any]:
    room = RoomBuilder.started(version.identifier, creator=f"@creator:{PEER}", sign=True)
    room.join(f"@dora:{PEER}", {"displayname": "Dora \U0001f600", "n": [1, {"b": None, "a": 2}]})
    return [event.pdu for event in room.state.values()]


class PlainPdusTest(SynchronousTestCase):
    def same(
        self, text: bytes, version: RoomVersion, room_id: str | None, is_new: bool = False
    ) -> bool:
        """Compare; whether it was read in one go."""
        found = said(text, version, room_id, is_new)
        with patch.object(pdus, "read_plain", lambda *_, **__: None):
            self.assertEqual(found, said(text, version, room_id, is_new), text[:500])
        return plain_pdus.read_plain(text, version, room_id, is_new=is_new) is not None

    def test_sound_events(self) -> None:
        """In every version that knows canonical JSON, however they are written."""
        self.assertGreater(len(STRICT), 5)
        for version in STRICT:
            state = state_of(version)
            for pdu in state:
                for options in ({}, {"indent": 1}, {"ensure_ascii": False}):
                    text = json.dumps(pdu, **options).encode()
                    is_plain = self.same(text, version, pdu.get("room_id"))
                    self.assertEqual(is_plain, pdu["type"] != "m.room.create")
            room_id = state[-1]["room_id"]
            self.assertFalse(self.same(text, version, room_id + "x"))
            self.assertTrue(self.same(text, version, None, is_new=True))

    def test_others(self) -> None:
        """Some part of an event is of another kind, or lacks."""
        rng = random.Random(8)
        plain = 0
        for version in STRICT:
            state = [json.dumps(pdu) for pdu in state_of(version)]
            for _ in range(700):
                pdu = json.loads(rng.choice(state))
                room_id = pdu.get("room_id")
                for _ in range(rng.choice((1, 1, 2))):
                    value = rng.choice(VALUES)
                    choice = rng.random()
                    if choice < 0.15:
                        pdu.pop(rng.choice(KEYS), None)
                    elif choice < 0.35 and isinstance(pdu.get("content"), dict):
                        pdu["content"][rng.choice(CONTENT)] = value
                    elif choice < 0.5 and isinstance(pdu.get("signatures"), dict):
                        key_id = rng.choice(("ed25519:x", "rsa:1", "ed25519:policy_server", "y"))
                        server = rng.choice((PEER, "c.example"))
                        pdu["signatures"][server] = {key_id: rng.choice(("AAAA", value))}
                    else:
                        pdu[rng.choice(KEYS)] = value
                if rng.random() < 0.5:
                    rehash(pdu, version)
                is_new = rng.random() < 0.5
                plain += self.same(json.dumps(pdu).encode(), version, room_id, is_new)
        self.assertGreater(plain, 400)

    def test_what_is_not_signed(self) -> None:
        """It must be JSON that events may hold, and nothing of it is kept."""
        deep: Any = {}
        for _ in range(508):
            deep = {"x": deep}
        sound: tuple[Any, ...] = (
            *({}, {"age": 12}, {"prev_content": {"a": [None, "\0ä"]}, "age_ts": -(2**53) + 1}),
            *({"x" * 20_000: "y"}, deep),
        )
        others: tuple[Any, ...] = (
            *(None, [], "x", 1, {"age": 1.0}, {"age": 2**53}, {"a": [{"b": -(2**60)}]}),
            *({"a": 2**70}, {"x": "y" * 70_000}, {"x": {"x": {"x": {"x": {"x": deep}}}}}),
        )
        for version in STRICT:
            pdu = state_of(version)[-1]
            for value in (*sound, *others):
                text = json.dumps({**pdu, "unsigned": value}).encode()
                is_plain = self.same(text, version, pdu["room_id"])
                self.assertEqual(is_plain, value in sound, text[:99])
            without = json.dumps(pdu).encode()
            odd = without[:-1] + b',"unsigned":{"age":1.5},"unsigned":{}}'
            self.assertFalse(self.same(odd, version, pdu["room_id"]))
            for odd in (b'"\\ud800"', b'"\xff"', b"NaN", b"1e5", b"-0", b'{"a":1,"a":2}'):
                text = without[:-1] + b',"unsigned":{"x":' + odd + b"}}"
                try:
                    self.same(text, version, pdu["room_id"])
                except NotJSON:
                    self.assertIsNone(
                        plain_pdus.read_plain(text, version, pdu["room_id"], is_new=False)
                    )

    def test_origin(self) -> None:
        """Older events name their server; that is hashed, and up to version 10 signed."""
        for version in STRICT:
            pdu = {**state_of(version)[-1], "origin": PEER}
            self.assertFalse(self.same(json.dumps(pdu).encode(), version, pdu["room_id"]))
            rehash(pdu, version)
            self.assertTrue(self.same(json.dumps(pdu).encode(), version, pdu["room_id"]))
            others: tuple[Any, ...] = (None, 1, [])
            for origin in others:
                text = json.dumps({**pdu, "origin": origin}).encode()
                self.assertFalse(self.same(text, version, pdu["room_id"]))

    def test_hashes(self) -> None:
        """Padded ones are as good, others are told; of keys that come twice the last counts."""
        [*_, pdu] = state_of(ROOM_VERSIONS["11"])
        right = pdu["hashes"]["sha256"]
        version, room_id = ROOM_VERSIONS["11"], pdu["room_id"]
        for changed in (right + "=", right[:-1], "", "?"):
            text = json.dumps({**pdu, "hashes": {"sha256": changed}}).encode()
            self.assertFalse(self.same(text, version, room_id))
        text = json.dumps({**pdu, "hashes": {"sha256": right, "sha512": "x"}}).encode()
        self.assertTrue(self.same(text, version, room_id))
        twice = json.dumps(pdu).encode()[:-1] + b',"depth":1,"depth":%d}' % pdu["depth"]
        self.assertTrue(self.same(twice, version, room_id))
        self.assertFalse(self.same(twice[:-1] + b',"depth":1}', version, room_id))

    def test_many_auth_events_are_not_remembered(self) -> None:
        """They may be as long as an event."""
        room = RoomBuilder.started("11", creator=f"@creator:{PEER}", sign=True)
        names = [f"${number:043}" for number in range(500)]
        few = room.set_state("x", {}, auth=names[:10])
        many = room.set_state("x", {}, auth=names)
        version = ROOM_VERSIONS["11"]
        before = plain_pdus._shared.cache_info().misses
        for event, misses in ((few, 1), (few, 1), (many, 1)):
            self.assertTrue(self.same(json.dumps(event.pdu).encode(), version, room.room_id))
            self.assertEqual(plain_pdus._shared.cache_info().misses - before, misses)

    def test_names_that_are_none_are_not_remembered(self) -> None:
        room = RoomBuilder.started("11", creator=f"@creator:{PEER}", sign=True)
        event = room.set_state("x", {}, auth=["$" + "x" * 500, "$\u00e9"])
        kept = plain_pdus._shared.cache_info().currsize
        for _ in range(2):
            text = json.dumps(event.pdu).encode()
            self.assertFalse(self.same(text, ROOM_VERSIONS["11"], room.room_id))
        self.assertEqual(plain_pdus._shared.cache_info().currsize, kept)

    def test_texts(self) -> None:
        """Whatever is done to the text, it is read as others are: what is no JSON is none here."""
        rng = random.Random(9)
        plain = 0
        for version in STRICT:
            state = state_of(version)
            for _ in range(100):
                pdu = rng.choice(state)
                text = json.dumps(pdu, ensure_ascii=rng.random() < 0.5).encode()
                for _ in range(rng.choice((1, 1, 2))):
                    text = changed(rng, text)
                room_id = rng.choice((pdu.get("room_id"), None))
                try:
                    expected = said(canonical.parse(text), version, room_id, True)
                except canonical.NotJSON:
                    with self.assertRaises(canonical.NotJSON, msg=text):
                        said(text, version, room_id, True)
                    continue
                self.assertEqual(said(text, version, room_id, True), expected, text)
                found = plain_pdus.read_plain(text, version, room_id, is_new=True)
                plain += found is not None
        self.assertGreater(plain, 100)
