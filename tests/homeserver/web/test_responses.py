from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.errors import MatrixError, limit_exceeded
from homeserver.core.ids import UserID
from homeserver.web.responses import EMPTY, Response, encode_json, error_response, redirect


class Answer(msgspec.Struct, omit_defaults=True):
    user: UserID
    events: list[Any] = []


class SharedHeadersTests(SynchronousTestCase):
    def test_they_stay_as_they_are(self) -> None:
        headers: Any = Response.of_json(200, b"{}").headers
        self.assertEqual(headers, {"Content-Type": "application/json"})
        for change in (
            lambda: headers.update(a="b"),
            lambda: headers.__setitem__("a", "b"),
            lambda: headers.setdefault("a", "b"),
            lambda: headers.pop("Content-Type"),
            lambda: headers.clear(),
        ):
            self.assertRaises(TypeError, change)


class EncodeTests(SynchronousTestCase):
    def test_values(self) -> None:
        user = UserID("@a:b")
        answer = Answer(user, [msgspec.Raw(b'{"x":1.0}'), {user: user}])
        self.assertEqual(
            encode_json(answer), b'{"user":"@a:b","events":[{"x":1.0},{"@a:b":"@a:b"}]}'
        )
        self.assertEqual(encode_json(EMPTY), b"{}")
        self.assertEqual(encode_json({"a": 2**70}), b'{"a":%d}' % 2**70)
        self.assertEqual(encode_json("ë☃"), '"ë☃"'.encode())

    def test_other_types(self) -> None:
        with self.assertRaises(TypeError):
            encode_json({"a": object()})


class ResponseTests(SynchronousTestCase):
    def test_error(self) -> None:
        """Shows HTTP-1."""
        response = error_response(MatrixError(418, "M_TEA", "No coffee.", size=1))
        self.assertEqual(response.status, 418)
        self.assertEqual(response.body, b'{"errcode":"M_TEA","error":"No coffee.","size":1}')

    def test_retry_after(self) -> None:
        """Shows HTTP-10: whole seconds, not too few."""
        for ms, seconds in ((1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")):
            headers = error_response(limit_exceeded(ms)).headers
            self.assertEqual(headers["Retry-After"], seconds)

    def test_header(self) -> None:
        self.assertEqual(Response(200, b"", {"X-Y": "z"}).header("x-y"), "z")
        self.assertIsNone(Response(200, b"").header("x"))
        self.assertEqual(redirect("/x").header("location"), "/x")
