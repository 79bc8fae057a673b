"""What is believed of well-known answers, and for how long."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from federation.client.errors import BadAnswer, Unreachable
from federation.client.well_known import WellKnown, WellKnownAnswer, lifetime_s, parse

HOUR = 3600


def delegating(to: object = "b.example", **headers: str) -> WellKnownAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return WellKnownAnswer(200, named, json.dumps({"m.server": to}).encode())


MISSING = WellKnownAnswer(404, {}, b"")


class CacheTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.answer: WellKnownAnswer | Exception = delegating()
        self.asked = 0
        self.well_known = WellKnown(self.fetch, self.clock)

    async def fetch(self, host: str) -> WellKnownAnswer:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def ask(self) -> str | None:
        return self.successResultOf(Deferred.fromCoroutine(self.well_known.delegated("A.example")))

    def lasts(self, seconds: float) -> None:
        """What is believed now is so for this long, and not asked about meanwhile."""
        self.ask()
        asked = self.asked
        self.clock.advance(seconds - 1)
        self.ask()
        self.assertEqual(self.asked, asked, "asked again too early")
        self.clock.advance(2)
        self.ask()
        self.assertEqual(self.asked, asked + 1, "not asked again")

    def test_a_day_by_default(self) -> None:
        """Shows KEY-3."""
        self.assertEqual(self.ask(), "b.example")
        self.lasts(24 * HOUR)

    def test_as_the_header_says(self) -> None:
        """Shows KEY-3."""
        self.answer = delegating(cache_control="public, max-age=7200")
        self.lasts(2 * HOUR)

    def test_two_days_at_most(self) -> None:
        """Shows KEY-3."""
        self.answer = delegating(cache_control="max-age=999999999999")
        self.lasts(48 * HOUR)

    def test_some_minutes_at_least(self) -> None:
        """Shows KEY-3."""
        self.answer = delegating(cache_control="no-store")
        self.lasts(300)

    def test_failures_back_off_to_an_hour(self) -> None:
        """Shows KEY-3."""
        self.answer = MISSING
        self.assertIsNone(self.ask())
        for wait in (60, 120, 240, 480, 960, 1920, 3600, 3600):
            asked = self.asked
            self.clock.advance(wait - 1)
            self.ask()
            self.assertEqual(self.asked, asked)
            self.clock.advance(1)
            self.ask()
            self.assertEqual(self.asked, asked + 1)

    def test_a_failure_with_a_lifetime(self) -> None:
        """Shows KEY-3."""
        self.answer = WellKnownAnswer(404, {"cache-control": "max-age=600"}, b"")
        self.lasts(600)

    def test_a_failure_lasts_an_hour_at_most(self) -> None:
        """Shows KEY-3."""
        self.answer = WellKnownAnswer(404, {"cache-control": "max-age=86400"}, b"")
        self.lasts(3600)

    def test_success_ends_the_back_off(self) -> None:
        """Shows KEY-3."""
        self.answer = MISSING
        for _ in range(5):
            self.ask()
            self.clock.advance(HOUR)
        self.answer = delegating(cache_control="max-age=600")
        self.assertEqual(self.ask(), "b.example")
        self.clock.advance(600)
        self.answer = MISSING
        self.assertIsNone(self.ask())
        self.clock.advance(60)
        asked = self.asked
        self.ask()
        self.assertEqual(self.asked, asked + 1)

    def test_a_host_that_is_down_keeps_its_delegation_for_two_days(self) -> None:
        self.ask()
        for failure in (Unreachable("a.example", "gone"), WellKnownAnswer(503, {}, b"")):
            self.answer = failure
            self.clock.advance(24 * HOUR - 1)
            self.assertEqual(self.ask(), "b.example")
        self.clock.advance(2)
        self.assertIsNone(self.ask())

    def test_a_host_that_answers_otherwise_loses_its_delegation(self) -> None:
        for failure in (MISSING, BadAnswer("a.example", "too large")):
            self.answer = delegating()
            self.clock.advance(24 * HOUR)
            self.assertEqual(self.ask(), "b.example")
            self.clock.advance(24 * HOUR)
            self.answer = failure
            self.assertIsNone(self.ask())

    def test_simultaneous_questions_are_one(self) -> None:
        """A caller who gives up does not end the question of the others."""
        waiting: Deferred[WellKnownAnswer] = Deferred()
        asked = []

        async def fetch(host: str) -> WellKnownAnswer:
            asked.append(host)
            return await waiting

        well_known = WellKnown(fetch, self.clock)
        first = Deferred.fromCoroutine(well_known.delegated("a.example"))
        second = Deferred.fromCoroutine(well_known.delegated("a.example"))
        first.addErrback(lambda _: None)
        first.cancel()
        self.assertNoResult(second)
        waiting.callback(delegating())
        self.assertEqual(self.successResultOf(second), "b.example")
        self.assertEqual(asked, ["a.example"])


class ParseTests(TestCase):
    def test_invalid_answers(self) -> None:
        """Shows KEY-1: they lead to the next step."""
        for body in (
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"m.server":3}',
            b'{"m.server":"a b"}',
            b'{"m.server":"b.example:99999"}',
            b'{"m.server":"https://b.example"}',
        ):
            self.assertIsNone(parse(WellKnownAnswer(200, {}, body)), body)
        self.assertIsNone(parse(WellKnownAnswer(404, {}, delegating().body)))
        self.assertEqual(parse(delegating("b.example:80")), "b.example:80")

    def test_lifetimes(self) -> None:
        """Shows KEY-3."""
        date = "Thu, 01 Jan 1970 00:10:00 GMT"
        hour = "Thu, 01 Jan 1970 01:10:00 GMT"
        for headers, expected in (
            ({}, None),
            ({"cache-control": "public"}, None),
            ({"cache-control": 'private, MAX-AGE="60"'}, 60),
            ({"cache-control": "max-age=60", "age": "20"}, 40),
            ({"cache-control": "max-age=60", "expires": hour}, 60),
            ({"cache-control": "max-age=60, no-cache"}, 0),
            ({"cache-control": "max-age=-5"}, None),
            ({"expires": hour}, 4100),
            ({"expires": hour, "date": date}, 3600),
            ({"expires": date, "date": hour}, 0),
            ({"expires": "0"}, 0),
        ):
            self.assertEqual(lifetime_s(headers, 100.0), expected, headers)
