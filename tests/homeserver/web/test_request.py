from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.errors import MatrixError
from homeserver.web.request import Request


class RequestTests(SynchronousTestCase):
    def test_target(self) -> None:
        request = Request("GET", "/a%2Fb?c=d?e")
        self.assertEqual((request.path, request.raw_query), ("/a%2Fb", "c=d?e"))
        self.assertEqual(request.target, "/a%2Fb?c=d?e")
        self.assertEqual(Request("GET", "/a").target, "/a")

    def test_no_query_in_logs(self) -> None:
        """Shows HTTP-16: what is written of a request holds no token."""
        self.assertEqual(repr(Request("GET", "/a?access_token=x")), "<Request GET /a>")

    def test_json(self) -> None:
        request = Request("PUT", "/", body=b'{"a":1}')
        self.assertEqual(request.json(), {"a": 1})
        self.assertIs(request.json(), request.json())
        with self.assertRaises(MatrixError) as caught:
            Request("PUT", "/", body=b"{").json()
        self.assertEqual(caught.exception.errcode, "M_NOT_JSON")

    def test_disconnect(self) -> None:
        told: list[int] = []
        request = Request("GET", "/")
        request.on_disconnect(lambda: told.append(1))
        request.on_disconnect(lambda: told.append(2))
        self.assertEqual(told, [])
        request.disconnected()
        request.disconnected()
        self.assertEqual(told, [1, 2])
        request.on_disconnect(lambda: told.append(3))
        self.assertEqual(told, [1, 2, 3])

    def test_shutdown(self) -> None:
        told: list[int] = []
        request = Request("GET", "/")
        self.assertFalse(request.shutting_down())
        request.on_shutdown(lambda: told.append(1))
        self.assertTrue(request.shutting_down())
        self.assertTrue(request.shutting_down())
        self.assertEqual(told, [1])
