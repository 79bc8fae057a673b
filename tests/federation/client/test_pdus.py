"""The first checks of events, with keys that are at hand and with keys that are asked for."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from federation.client.keyring import ServerKey
from federation.client.pdus import CHUNK, CheckedPdu, PduChecker
from homeserver.core.canonical import NotJSON
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import KnownKey
from homeserver.core.types import JsonObject
from tests.support.events import RoomBuilder, test_key

reactor: Any = installed_reactor
PEER = "b.example"
KEY = test_key(PEER)
KEYS = {PEER: {KEY.key_id: KnownKey(KEY.verify_key, 2**53 - 1)}}


class Keys:
    """Has the key of `PEER`, at hand or not; counts how often it was asked for."""

    def __init__(self, is_at_hand: bool) -> None:
        self.is_at_hand = is_at_hand
        self.asked = 0

    async def keys_for(self, wanted: Mapping[ServerKey, int]) -> dict[str, dict[str, KnownKey]]:
        self.asked += 1
        return KEYS

    def keys_at_hand(
        self, pdus: Sequence[JsonObject], version: RoomVersion
    ) -> dict[str, dict[str, KnownKey]] | None:
        return KEYS if self.is_at_hand else None


def good_and_bad(version: str) -> tuple[RoomBuilder, list[Any]]:
    """Sound events, and what is wrong with others in each of the steps."""
    room = RoomBuilder.started(version, creator=f"@creator:{PEER}", sign=True)
    good = [room.message(room.creator, f"message {number}").pdu for number in range(5)]
    changed, unsigned, shapeless, large, strange, noted = (copy.deepcopy(good[0]) for _ in range(6))
    changed["content"]["body"] = "another"
    unsigned["signatures"] = {}
    del shapeless["depth"]
    large["content"]["body"] = "x" * 70_000
    strange["sender"] = f"@somebody:{PEER}:x"
    noted["unsigned"] = {"age": 1}
    return room, [*good, changed, unsigned, shapeless, large, strange, noted]


def odd_numbers(pdu: Any) -> list[Any]:
    """Events with numbers that newer room versions refuse, signed as if these were nothing."""
    numbers: list[Any] = [1.0, 1e300, -0.0, 2**53, 2**64, -(2**70), [[2.5]]]
    return [{**pdu, "content": {**pdu["content"], "number": number}} for number in numbers]


def shown(checked: Sequence[CheckedPdu]) -> list[tuple[str | None, Any, str | None]]:
    return [(c.event_id, c.event and (c.event.pdu, c.event.to_json()), c.error) for c in checked]


class CheckTest(TestCase):
    async def _check(self, keys: Keys, pdus: Sequence[Any], room: RoomBuilder) -> list[CheckedPdu]:
        return await PduChecker(keys, reactor).check(pdus, room.version)

    async def _same(self, version: str) -> None:
        room, pdus = good_and_bad(version)
        near, far = Keys(is_at_hand=True), Keys(is_at_hand=False)
        found = await self._check(near, pdus, room)
        self.assertEqual(shown(found), shown(await self._check(far, pdus, room)))
        self.assertEqual((near.asked, far.asked), (0, 1))
        self.assertEqual([c.event is not None for c in found], [True] * 6 + [False] * 4 + [True])
        redacted = found[5].event
        assert redacted is not None
        self.assertEqual(redacted.content, {})

    def test_keys_at_hand_make_no_difference(self) -> Any:
        """One turn or two: every event is checked by the same steps."""
        return ensureDeferred(self._same("11"))

    async def _as_text(self, version: str) -> None:
        room, pdus = good_and_bad(version)
        mixed = [*pdus, *odd_numbers(pdus[0]), 7, 1.5, None, "x", [], {}]
        for given in (mixed, mixed * (CHUNK // len(mixed) + 2)):
            texts = [Raw(json.dumps(pdu).encode()) for pdu in given]
            found = await self._check(Keys(is_at_hand=False), texts, room)
            expected = await self._check(Keys(is_at_hand=False), given, room)
            self.assertEqual(shown(found), shown(expected))
            for wrong in (b'{"a":"\xff"}', b'{"a":1e999}'):
                with self.assertRaises(NotJSON):
                    await self._check(Keys(is_at_hand=False), [*texts, Raw(wrong)], room)

    def test_texts_of_events(self) -> Any:
        """As if whoever asks had parsed them."""
        return ensureDeferred(self._as_text("11"))

    async def _counted(self) -> None:
        room, pdus = good_and_bad("11")
        state = [event.pdu for event in room.state.values()]
        counts: Counter[str] = Counter()
        checker = PduChecker(
            Keys(is_at_hand=False), reactor, lambda way, count: counts.update({way: count})
        )
        texts = [Raw(json.dumps(pdu).encode()) for pdu in (*state, *pdus)]
        await checker.check(texts, room.version)
        # Five messages are plain, and one with something unsigned, and one with no signatures.
        self.assertEqual(counts, {"few": len(texts) - 7, "message": 7})
        await checker.check(texts * CHUNK, room.version)
        # The create event and messages are not plain.
        plain = (len(state) - 1) * CHUNK
        expected = {
            "few": len(texts) - 7,
            "message": 7,
            "plain": plain,
            "general": len(texts) * CHUNK - plain,
        }
        self.assertEqual(counts, expected)

    def test_counted(self) -> Any:
        """Each event once, by the way it went."""
        return ensureDeferred(self._counted())

    def test_texts_in_lenient_versions(self) -> Any:
        return ensureDeferred(self._as_text("5"))

    def test_lenient_versions(self) -> Any:
        """The same in a version whose events may hold floats."""
        return ensureDeferred(self._same("5"))

    def test_what_is_no_object(self) -> Any:
        """Keys are looked for only where it is told who signed, however deep that is nested."""

        async def check() -> None:
            room, pdus = good_and_bad("11")
            keys = Keys(is_at_hand=True)
            deep: Any = []
            for _ in range(900):
                deep = [deep]
            odd = {**pdus[0], "sender": deep}
            found = await self._check(keys, [*pdus[:3], 7, None, "x", odd], room)
            self.assertEqual([c.event is not None for c in found], [True] * 3 + [False] * 4)
            self.assertEqual(keys.asked, 1)

        return ensureDeferred(check())
