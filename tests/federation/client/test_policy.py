"""Asking policy servers."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from federation.client.errors import RemoteHttpError
from federation.client.policy import PolicyCalls
from federation.client.requests import FederationClient
from homeserver.core.errors import MatrixError
from homeserver.core.policy import is_recommended, policy_server
from tests.homeserver.rooms.test_policy import policy_content, signed
from tests.support.events import RoomBuilder

OLD = "/_matrix/policy/unstable/org.matrix.msc4284/sign"
NEW = "/_matrix/policy/v1/sign"


class Answers:
    """In place of the client: what each path answers; exceptions are raised."""

    def __init__(self, new: Any, old: Any = None) -> None:
        self.asked: list[str] = []
        self._answers = {NEW: new, OLD: old}

    async def post_json(self, destination: str, path: str, body: Any, **options: Any) -> Any:
        self.asked.append(path)
        answer = self._answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer


def refusal(status: int, errcode: str | None) -> RemoteHttpError:
    return RemoteHttpError("c.example", status, {"errcode": errcode, "error": "no"})


class PolicyCallsTest(TestCase):
    def setUp(self) -> None:
        server = policy_server(policy_content())
        assert server is not None
        self.server = server
        self.event = RoomBuilder.started(sign=True).message()
        self.signatures = signed(self.event).pdu["signatures"]

    async def ask(self, answers: Answers) -> bool:
        calls = PolicyCalls(cast(FederationClient, answers))
        return is_recommended(await calls.signed(self.event, self.server), self.server)

    async def test_the_path_of_the_specification(self) -> None:
        answers = Answers(self.signatures)
        self.assertTrue(await self.ask(answers))
        self.assertEqual(answers.asked, [NEW])

    async def test_the_path_from_before(self) -> None:
        for unknown in (refusal(404, "M_UNRECOGNIZED"), refusal(404, None), refusal(405, None)):
            answers = Answers(unknown, self.signatures)
            self.assertTrue(await self.ask(answers))
            self.assertEqual(answers.asked, [NEW, OLD])

    async def test_refusals(self) -> None:
        unknown = refusal(404, "M_UNRECOGNIZED")
        for answers, status, errcode, paths in (
            (Answers(refusal(400, "M_FORBIDDEN"), {}), 400, "M_FORBIDDEN", [NEW]),
            (Answers(unknown, refusal(403, "M_FORBIDDEN")), 403, "M_FORBIDDEN", [NEW, OLD]),
            (Answers(refusal(500, None)), 502, "M_UNKNOWN", [NEW]),
            (Answers({}), 502, "M_UNKNOWN", [NEW]),
        ):
            error = await self.assertFailure(self._deferred(answers), MatrixError)
            self.assertEqual((error.status, error.errcode), (status, errcode))
            self.assertEqual(answers.asked, paths)

    def _deferred(self, answers: Answers) -> Any:
        return Deferred.fromCoroutine(self.ask(answers))
