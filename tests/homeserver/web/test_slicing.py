"""Encoding in slices."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.web import slicing
from homeserver.web.slicing import ENTRIES, Slicer, encode_list, slices

ROOMS = 5_000


def answer(rooms: int) -> dict[str, Any]:
    """The shape of an answer of `/sync`."""
    events = msgspec.Raw(b"[" + b",".join([b'{"type":"x"}'] * 100) + b"]")
    join = {
        f"!room{number}\u2028é": {"timeline": {"events": events, "limited": True}, "summary": {}}
        for number in range(rooms)
    }
    return {"next_batch": "s1_2", "rooms": {"join": join, "leave": {}}, "to_device": {"events": []}}


class _Reactor:
    """Runs what was asked for one by one."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callLater(self, delay: float, function: Any, *args: Any) -> None:
        assert delay == 0
        self.calls.append((function, args))

    def turn(self) -> None:
        function, args = self.calls.pop(0)
        function(*args)


class SlicesTest(TestCase):
    def test_equal(self) -> None:
        values: list[Any] = [*map(answer, (0, 1, ENTRIES, ENTRIES + 1)), {}, [], "x", {"a": {}}]
        for value in values:
            for depth in (0, 1, 2, 3):
                text = b"".join(slices(value, depth))
                self.assertEqual(json.loads(text), json.loads(msgspec.json.encode(value)))

    def test_lists(self) -> None:
        for count in (0, 1, 200, 201, 1000):
            values = [{"n": number} for number in range(count)]
            self.assertEqual(json.loads(bytes(encode_list(values))), values)


class SlicerTest(TestCase):
    def test_no_slice_does_much_and_others_have_their_turns(self) -> None:
        """Work is counted: entries that are encoded between two turns of the reactor."""
        reactor: Any = _Reactor()
        encoded: list[int] = []
        turns: list[int] = []

        def counting(value: Any) -> bytes:
            encoded.append(len(value) if isinstance(value, dict) else 1)
            return msgspec.json.encode(value)

        with mock.patch.object(slicing, "encode_json", counting):
            coroutine = Slicer(reactor).encode(answer(ROOMS), 2)
            done = Deferred.fromCoroutine(coroutine)
            while not done.called:
                turns.append(sum(encoded))
                encoded.clear()
                reactor.turn()
            turns.append(sum(encoded))
        self.assertEqual(
            json.loads(self.successResultOf(done)), json.loads(msgspec.json.encode(answer(ROOMS)))
        )
        self.assertLessEqual(max(turns), ENTRIES + 10)
        self.assertGreaterEqual(len(turns), ROOMS // ENTRIES)
