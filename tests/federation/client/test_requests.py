"""The client's signatures, checks and errors, with an agent that remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from federation.client.errors import (
    BadAnswer,
    InvalidDestination,
    RemoteError,
    RemoteHttpError,
    RemoteTimeout,
    Unreachable,
)
from federation.client.requests import Answer, FederationClient, federation_path
from homeserver.core.errors import MatrixError
from homeserver.core.ids import ServerName
from homeserver.core.signing import verify_json
from tests.federation.client.network import KEY


class FakeAgent:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, dict[str, str], bytes | None]] = []
        self.answer: Answer | Exception | Deferred[Answer] = Answer(200, None, b'{"ok":true}')

    async def request(
        self,
        method: str,
        destination: ServerName,
        uri: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        max_bytes: int,
        max_error_bytes: int,
    ) -> Answer:
        self.sent.append((method, destination, uri, dict(headers), body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


class ClientTests(TestCase):
    def setUp(self) -> None:
        self.agent = FakeAgent()
        self.clock = Clock()
        self.client = FederationClient("us.example", KEY, self.agent, self.clock)

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, kind: type[Exception], destination: str = "them.example") -> Any:
        asking = self.client.get_json(destination, "/_matrix/x")
        return self.failureResultOf(Deferred.fromCoroutine(asking), kind).value

    def credentials(self) -> dict[str, str]:
        """The parameters of the header last sent."""
        scheme, _, rest = self.agent.sent[-1][3]["Authorization"].partition(" ")
        self.assertEqual(scheme, "X-Matrix")
        parts = [part.partition("=") for part in rest.split(",")]
        self.assertTrue(all(v[0] == v[-1] == '"' and "\\" not in v for _, _, v in parts))
        return {name: value.strip('"') for name, _, value in parts}

    def check_signature(self, signed: dict[str, Any]) -> None:
        given = self.credentials()
        self.assertEqual(list(given), ["origin", "destination", "key", "sig"])
        self.assertEqual(given["origin"], "us.example")
        self.assertEqual(given["destination"], signed["destination"])
        self.assertEqual(given["key"], "ed25519:a1")
        signed["signatures"] = {"us.example": {given["key"]: given["sig"]}}
        verify_json(signed, "us.example", given["key"], KEY.verify_key)

    def test_a_signed_get(self) -> None:
        """Shows KEY-6: the query belongs to what is signed; without body there is no content."""
        query: dict[str, str | list[str]] = {"ver": ["1", "2"], "q": "a b&é"}
        self.done(self.client.get_json("them.example:80", "/_matrix/x", query=query))
        uri = "/_matrix/x?ver=1&ver=2&q=a+b%26%C3%A9"
        self.assertEqual(self.agent.sent[0][:3], ("GET", "them.example:80", uri))
        self.assertIsNone(self.agent.sent[0][4])
        self.check_signature(
            {"method": "GET", "uri": uri, "origin": "us.example", "destination": "them.example:80"}
        )

    def test_signed_bodies(self) -> None:
        """Shows KEY-6."""
        for method, send in (("PUT", self.client.put_json), ("POST", self.client.post_json)):
            for body in ({"b": "é", "a": {"z": 1, "y": [None]}}, {}):
                self.done(send("them.example", "/_matrix/x", body))
                self.assertEqual(self.agent.sent[-1][3]["Content-Type"], "application/json")
                self.check_signature(
                    {
                        "method": method,
                        "uri": "/_matrix/x",
                        "origin": "us.example",
                        "destination": "them.example",
                        "content": body,
                    }
                )

    def test_a_body_with_an_event_of_an_old_room(self) -> None:
        self.done(self.client.put_json("them.example", "/_matrix/x", {"pdus": [{"n": 1.5}]}))
        self.assertEqual(self.agent.sent[0][4], b'{"pdus":[{"n":1.5}]}')

    def test_unsigned(self) -> None:
        self.done(self.client.get_json("them.example", "/_matrix/key/v2/server", signed=False))
        self.assertNotIn("Authorization", self.agent.sent[0][3])

    def test_itself_and_what_is_no_server(self) -> None:
        for name in ("us.example", "US.example", "a b", "", "b.example:99999", "a.example/x"):
            error = self.fails(InvalidDestination, name)
            self.assertEqual(error.destination, name)
        self.assertEqual(self.agent.sent, [])

    def test_their_errors_are_not_ours(self) -> None:
        self.agent.answer = Answer(403, None, b'{"errcode":"M_FORBIDDEN","error":"no"}')
        error = self.fails(RemoteHttpError)
        self.assertEqual((error.status, error.errcode, error.error), (403, "M_FORBIDDEN", "no"))
        self.assertNotIsInstance(error, MatrixError)
        self.assertEqual(str(error), "them.example: answered 403 M_FORBIDDEN no")

    def test_errors_that_are_no_standard_errors(self) -> None:
        for body in (b"<html>", b"[]", b'{"errcode":5,"error":{}}'):
            self.agent.answer = Answer(502, None, body)
            error = self.fails(RemoteHttpError)
            self.assertEqual((error.status, error.errcode, error.error), (502, None, None))

    def test_how_long_they_want_to_be_left_alone(self) -> None:
        for header, body, expected in (
            ("7", b'{"retry_after_ms":5}', 7000),
            (None, b'{"retry_after_ms":5}', 5),
            ("Wed, 21 Oct 2015 07:28:00 GMT", b'{"retry_after_ms":5}', 5),
            (None, b'{"retry_after_ms":-5}', None),
            (None, b'{"retry_after_ms":true}', None),
            (None, b"", None),
        ):
            self.agent.answer = Answer(429, header, body)
            self.assertEqual(self.fails(RemoteHttpError).retry_after_ms, expected)

    def test_answers_that_are_no_objects(self) -> None:
        for body in (b"", b"{", b"[200,{}]", b'"x"', b'{"a":"\\ud800"}'):
            self.agent.answer = Answer(200, None, body)
            self.fails(BadAnswer)

    def test_answers_of_any_type(self) -> None:
        self.agent.answer = Answer(200, None, b"[200,{}]")
        asking = self.client.request("PUT", "them.example", "/_matrix/x", body={})
        self.assertEqual(self.done(asking), [200, {}])

    def test_the_time_is_up(self) -> None:
        self.agent.answer = Deferred()
        asking = Deferred.fromCoroutine(
            self.client.get_json("them.example", "/_matrix/x", timeout_s=5)
        )
        self.clock.advance(4)
        self.assertNoResult(asking)
        self.clock.advance(2)
        error = self.failureResultOf(asking, RemoteTimeout).value
        self.assertIsInstance(error, Unreachable)
        self.assertIsInstance(error, RemoteError)

    def test_no_timer_is_left(self) -> None:
        self.done(self.client.get_json("them.example", "/_matrix/x"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_paths(self) -> None:
        path = federation_path("/_matrix/a/{}/{}", "!room:x/y", "$ev+é{}?#")
        self.assertEqual(path, "/_matrix/a/%21room%3Ax%2Fy/%24ev%2B%C3%A9%7B%7D%3F%23")
