"""Ordinary messages are read in one go, with what the general path says of them."""

from __future__ import annotations

import copy
import random
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from federation.client import pdus, plain_messages
from federation.client.plain_messages import read_message
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from tests.federation.client.test_plain_pdus import KEYS, PEER, STRICT, VALUES, rehash, said
from tests.support.events import RoomBuilder

CONTENT = ("body", "msgtype", "m.mentions", "m.relates_to", "redacts", "membership", "x", "users")
KINDS = (
    *("m.room.message", "m.room.encrypted", "m.reaction", "m.room.redaction", "x", "ä", "a\0b"),
    *("m.room.member", "m.room.create", "m.room.power_levels", "", "x" * 255, "x" * 256),
)


def messages(version: RoomVersion) -> list[Any]:
    room = RoomBuilder.started(version.identifier, creator=f"@creator:{PEER}", sign=True)
    return [
        room.message(room.creator, text).pdu
        for text in ("message", "", "\U0001f600ä\0\u2028", "x" * 3000)
    ]


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"x": value}
    return value


class PlainMessagesTest(SynchronousTestCase):
    def same(
        self, pdu: Any, version: RoomVersion, room_id: str | None = None, is_new: bool = True
    ) -> bool:
        """Compare; whether it was read in one go. Nothing of what is given is changed."""
        before = [(key, id(value)) for key, value in pdu.items()]
        found = said(pdu, version, room_id, is_new)
        with patch.object(pdus, "read_message", lambda *_, **__: None):
            self.assertEqual(found, said(pdu, version, room_id, is_new), str(pdu)[:500])
        self.assertEqual([(key, id(value)) for key, value in pdu.items()], before)
        return read_message(pdu, version, is_new=is_new) is not None

    def test_sound_messages(self) -> None:
        """In every version that knows canonical JSON; with what nobody has signed, and without."""
        for version in STRICT:
            for pdu in messages(version):
                self.assertTrue(self.same(pdu, version))
                self.assertTrue(self.same(pdu, version, pdu["room_id"]))
                self.assertTrue(self.same({**pdu, "unsigned": {"age": 12, "x": []}}, version))
                # Of another room: told by the general path.
                self.same(pdu, version, pdu["room_id"] + "x")

    def test_kinds(self) -> None:
        """What a redaction keeps, and who signs, is told by the type."""
        for version in STRICT:
            plain = set()
            for kind in KINDS:
                pdu = messages(version)[0]
                pdu["type"] = kind
                pdu["content"] |= {"redacts": "$x", "membership": "join", "users": {}, "invite": 1}
                rehash(pdu, version)
                if self.same(pdu, version):
                    plain.add(kind)
            odd = {"ä", "a\0b", "m.room.member", "x" * 256}
            self.assertEqual(plain, set(KINDS) - odd)

    def test_others(self) -> None:
        """Some part of a message is of another kind, or lacks."""
        rng = random.Random(18)
        plain = tried = 0
        for version in STRICT:
            sound = messages(version)
            for _ in range(900):
                pdu = copy.deepcopy(rng.choice(sound))
                for _ in range(rng.choice((1, 1, 2))):
                    value = rng.choice(VALUES)
                    choice = rng.random()
                    if choice < 0.15:
                        pdu.pop(rng.choice(KEYS), None)
                    elif choice < 0.45 and isinstance(pdu.get("content"), dict):
                        pdu["content"][rng.choice(CONTENT)] = value
                    elif choice < 0.55 and isinstance(pdu.get("hashes"), dict):
                        pdu["hashes"][rng.choice(("sha256", "sha512"))] = value
                    elif choice < 0.65 and isinstance(pdu.get("signatures"), dict):
                        key_id = rng.choice(("ed25519:x", "rsa:1", "ed25519:policy_server", "y"))
                        server = rng.choice((PEER, "c.example"))
                        pdu["signatures"][server] = {key_id: rng.choice(("AAAA", value))}
                    else:
                        pdu[rng.choice(KEYS)] = value
                if rng.random() < 0.6:
                    rehash(pdu, version)
                tried += 1
                plain += self.same(pdu, version, is_new=rng.random() < 0.5)
        self.assertGreater(plain, tried // 10)
        self.assertLess(plain, tried // 2)

    def test_sizes(self) -> None:
        """An event may be so large as a whole, with what nobody has signed."""
        for version in (ROOM_VERSIONS["6"], ROOM_VERSIONS["11"]):
            pdu = messages(version)[0]
            pdu["content"]["body"] = "x" * 60_000
            rehash(pdu, version)
            found = []
            for size in range(65_536 - 60_900, 65_536 - 59_000):
                pdu["unsigned"] = {"x": "y" * size}
                checked = pdus._shape(pdu, version, None, True).checked
                found.append(checked.event is not None)
                self.assertEqual(read_message(pdu, version, is_new=True) is not None, found[-1])
            self.assertIn(True, found)
            self.assertIn(False, found)

    def test_nesting(self) -> None:
        """As deep as events may be nested."""
        version = ROOM_VERSIONS["11"]
        for levels in (200, 253, 254, 255, 508, 509, 510, 511, 512, 600):
            for key in ("content", "unsigned"):
                pdu = messages(version)[0]
                pdu[key] = nested(levels)
                if levels < 500:
                    rehash(pdu, version)
                self.same(pdu, version)

    def test_padded_hashes(self) -> None:
        """They are as good; wrong ones are told by the general path."""
        version = ROOM_VERSIONS["11"]
        pdu = messages(version)[0]
        right = pdu["hashes"]["sha256"]
        for changed in (right + "=", right[:-1], "", "?"):
            self.assertFalse(self.same({**pdu, "hashes": {"sha256": changed}}, version))

    def test_lenient_versions(self) -> None:
        """Their events take the general path."""
        for name in ("1", "3", "5"):
            [pdu, *_] = messages(ROOM_VERSIONS[name])
            self.assertFalse(self.same(pdu, ROOM_VERSIONS[name]))

    def test_names_are_remembered(self) -> None:
        """Those of ordinary events, once for all that name them; none that may be long."""
        version = ROOM_VERSIONS["11"]
        plain_messages._remember.cache_clear()
        for pdu in messages(version):
            self.assertTrue(self.same(pdu, version))
        self.assertEqual(plain_messages._remember.cache_info().currsize, 1)
        others: tuple[Any, ...] = (["$" + "x" * 1000], ["$a", 1], [["$a"]], [{}], ["$ä"])
        for names in others:
            pdu["auth_events"] = names
            self.assertFalse(self.same(pdu, version))
        self.assertEqual(plain_messages._remember.cache_info().currsize, 1)
