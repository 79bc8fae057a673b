"""Profiles that other servers tell."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from federation.client.errors import RemoteHttpError, Unreachable
from federation.client.queries import QueryCalls
from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.users.remote_profiles import RemoteProfiles

BOB = UserID("@bob:b.example")


class FakeClient:
    """Answers with `answer`, or raises it."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.asked = 0
        self.wait: Deferred[None] | None = None

    async def get_json(self, destination: str, path: str, **options: Any) -> Any:
        self.asked += 1
        if self.wait is not None:
            await self.wait
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class RemoteProfilesTest(TestCase):
    def setUp(self) -> None:
        self.client = FakeClient()
        self.clock = Clock()
        self.profiles = RemoteProfiles(QueryCalls(cast(Any, self.client)), self.clock)

    async def test_an_answer_is_remembered_for_a_short_time(self) -> None:
        """Shows MISC-5."""
        self.client.answer = {"displayname": "Bob", "m.tz": "Europe/Berlin", "avatar_url": None}
        wanted = {"displayname": "Bob", "m.tz": "Europe/Berlin"}
        for _ in range(3):
            self.assertEqual(await self.profiles.get(BOB), wanted)
        self.assertEqual(self.client.asked, 1)
        self.clock.advance(61)
        self.client.answer = {"displayname": "Robert"}
        self.assertEqual(await self.profiles.get(BOB), {"displayname": "Robert"})

    async def test_all_who_ask_at_once_share_one_answer(self) -> None:
        self.client.answer = {"displayname": "Bob"}
        self.client.wait = Deferred()
        asking = [Deferred.fromCoroutine(self.profiles.get(BOB)) for _ in range(3)]
        self.assertEqual(self.client.asked, 1)
        self.client.wait.callback(None)
        for each in asking:
            self.assertEqual(await each, {"displayname": "Bob"})

    async def test_failures(self) -> None:
        """They are this server's words, and remembered too."""
        for error, status, errcode in (
            (RemoteHttpError("b.example", 404, {"errcode": "M_WEIRD"}), 404, "M_NOT_FOUND"),
            (RemoteHttpError("b.example", 403, {}), 404, "M_NOT_FOUND"),
            (RemoteHttpError("b.example", 401, {"errcode": "M_X"}), 502, "M_UNKNOWN"),
            (RemoteHttpError("b.example", 500, {}), 502, "M_UNKNOWN"),
            (Unreachable("b.example", "down"), 502, "M_UNKNOWN"),
        ):
            self.client.answer, self.client.asked = error, 0
            for _ in range(2):
                with self.assertRaises(MatrixError) as caught:
                    await self.profiles.get(BOB)
                found = (caught.exception.status, caught.exception.errcode)
                self.assertEqual(found, (status, errcode))
            self.assertEqual(self.client.asked, 1)
            self.clock.advance(61)

    async def test_hostile_profiles(self) -> None:
        """Shows MISC-5."""
        self.client.answer = {"displayname": 5, "avatar_url": [], "x" * 256: "y", "org.ok": [1]}
        self.assertEqual(await self.profiles.get(BOB), {"org.ok": [1]})
        self.clock.advance(61)
        self.client.answer = {"org.big": "x" * 70_000}
        with self.assertRaises(MatrixError) as caught:
            await self.profiles.get(BOB)
        self.assertEqual(caught.exception.status, 502)
