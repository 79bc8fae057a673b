from __future__ import annotations

import logging
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from config.model import Rate, RateLimits
from homeserver.core.types import JsonObject
from homeserver.telemetry.logs import REQUEST_ID
from homeserver.web.endpoint import Auth, Empty, Requester, endpoint
from homeserver.web.limits import MemoryRateLimiter
from homeserver.web.responses import Response
from homeserver.web.router import Router
from tests.homeserver.web.sample import BASE, Echo, Sample, Tokens
from tests.support.client import Client
from tests.support.log import CapturedLog

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-headers": (
        "X-Requested-With, Content-Type, Authorization, If-Match, If-None-Match"
    ),
}


class ErrorTests(TestCase):
    """Every way to fail, as clients see it."""

    def setUp(self) -> None:
        self.sample = Sample()
        self.client = self.sample.client

    async def fails(self, status: int, errcode: str, *request: Any, **options: Any) -> Any:
        answer = await self.client.full(*request, **options)
        self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), request)
        self.assertIsInstance(answer.body["error"], str)
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer

    async def test_error_body(self) -> None:
        """Errors have `errcode` and `error`. Shows HTTP-1."""
        answer = await self.fails(403, "M_FORBIDDEN", "GET", f"{BASE}/fail/forbidden")
        self.assertEqual(set(answer.body), {"errcode", "error"})

    async def test_crash(self) -> None:
        """A crash is a 500 that tells nothing, and is logged with its traceback. Shows HTTP-1."""
        for how in ("crash", "key"):
            answer = await self.fails(500, "M_UNKNOWN", "GET", f"{BASE}/fail/{how}")
            self.assertNotIn("secret", str(answer.body))
        line = self.sample.log.lines[0]
        self.assertEqual((line["level"], line["path"]), ("error", f"{BASE}/fail/crash"))
        self.assertIsInstance(line["exc_info"], RuntimeError)

    async def test_unavailable(self) -> None:
        """While the database is away clients are told to come again, in a line of log each."""

        @endpoint("GET", "/x", auth=Auth.NONE)
        async def get_x() -> Empty:
            raise ConnectionResetError("the database is away")

        log = CapturedLog()
        router = Router(
            [get_x], {}, Tokens(), clock=Clock(), log=log.logger, unavailable=(OSError,)
        )
        status, body = await Client(router).get("/x")
        self.assertEqual((status, body["errcode"]), (503, "M_UNKNOWN"))
        self.assertNotIn("database", body["error"])
        (line,) = log.lines
        self.assertEqual((line["level"], line["path"]), ("warning", "/x"))
        self.assertEqual(line["reason"], "the database is away")
        self.assertNotIn("exc_info", line)

    async def test_unknown_paths(self) -> None:
        """Shows HTTP-2."""
        for path in (
            "/",
            "/_matrix",
            "/_matrix/unknown",
            "/_matrix/client/v3/unknown",
            "/_matrix/client/v3/echo/",
            "/_matrix/client/v99/echo",
            "/_matrix/federation/v1/unknown",
            "/_matrix/federation/v1",
            "/_matrix/key/unknown",
            "/_matrix/key/v2/server/more",
            "/_matrix/media/v3/unknown",
            "/_matrix/media/unknown",
            f"{BASE}/profile/",
            f"{BASE}/profile//",
        ):
            for method in ("GET", "PUT", "POST", "DELETE", "PATCH"):
                await self.fails(404, "M_UNRECOGNIZED", method, path)

    async def test_wrong_methods(self) -> None:
        """Shows HTTP-2."""
        for path, allowed in (
            (f"{BASE}/login", "OPTIONS, POST"),
            ("/_matrix/key/v2/server", "GET, OPTIONS"),
            ("/_matrix/federation/v1/version", "GET, OPTIONS"),
            ("/_matrix/media/v3/config", "GET, OPTIONS"),
            ("/_matrix/media/r0/config", "GET, OPTIONS"),
        ):
            answer = await self.fails(405, "M_UNRECOGNIZED", "PATCH", path)
            self.assertEqual(answer.headers["allow"], allowed)

    async def test_bodies(self) -> None:
        """Shows HTTP-3."""
        for body, errcode in (
            (b"", "M_NOT_JSON"),
            (b"{", "M_NOT_JSON"),
            (b'{"name":5', "M_NOT_JSON"),
            (b"nonsense", "M_NOT_JSON"),
            (b"[]", "M_BAD_JSON"),
            (b"null", "M_BAD_JSON"),
            (b'{"name":5}', "M_BAD_JSON"),
            (b"{}", "M_MISSING_PARAM"),
            (b'{"name":"x","inner":{}}', "M_MISSING_PARAM"),
            (b'{"name":"x","inner":{"user":5}}', "M_BAD_JSON"),
            (b'{"name":"x","inner":{"user":"no user"}}', "M_INVALID_PARAM"),
            (b'{"name":"x","inner":{"user":"@u:h","level":-1}}', "M_INVALID_PARAM"),
            (b'{"name":"x","kind":"c"}', "M_INVALID_PARAM"),
        ):
            await self.fails(400, errcode, "POST", f"{BASE}/echo", body=body)
        self.assertEqual(self.sample.notes.written, [])

    async def test_not_utf8(self) -> None:
        """Shows HTTP-4."""
        for path in ("POST", f"{BASE}/echo"), ("PUT", f"{BASE}/raw/x"):
            for body in (b'{"name":"\xff"}', b'{"name":"x","\xc3\x28":1}', b"\xef\xbb\xbf{}"):
                await self.fails(400, "M_NOT_JSON", *path, body=body)
        self.assertEqual(self.sample.notes.written, [])

    async def test_numbers(self) -> None:
        """Shows HTTP-5 for raw bodies and for content inside of structs."""
        for number in ("1.5", "1e3", "9007199254740992", "-9007199254740992", "1" * 40):
            body = b'{"name":"x","content":{"a":[%s]}}' % number.encode()
            await self.fails(400, "M_BAD_JSON", "PUT", f"{BASE}/raw/x", body=body)
            await self.fails(400, "M_BAD_JSON", "POST", f"{BASE}/strict", body=body)
        for number in ("NaN", "Infinity", "-Infinity", "1e999"):
            body = b'{"name":"x","content":{"a":%s}}' % number.encode()
            status, error = await self.client.put(f"{BASE}/raw/x", body=body)
            self.assertEqual(status, 400)
            self.assertIn(error["errcode"], ("M_NOT_JSON", "M_BAD_JSON"))
        self.assertEqual(self.sample.notes.written, [])
        body = b'{"a":9007199254740991,"b":-9007199254740991}'
        self.assertEqual((await self.client.put(f"{BASE}/raw/x", body=body))[0], 200)
        self.assertEqual((await self.client.put(f"{BASE}/lenient", body=b'{"a":1.5}'))[0], 200)

    async def test_query(self) -> None:
        """Shows HTTP-3 for query parameters."""
        for query in ("limit=x", "limit=-1", "limit=", "limit=1.5", "full=maybe", "dir=up"):
            answer = await self.fails(400, "M_INVALID_PARAM", "GET", f"{BASE}/page?{query}")
            self.assertIn(query.partition("=")[0], answer.body["error"])
        for query in ("via=b%20d", "from=%00", "from=%FF", "a=1&" * 300):
            await self.fails(400, "M_INVALID_PARAM", "GET", f"{BASE}/page?{query}")
        await self.fails(400, "M_MISSING_PARAM", "GET", f"{BASE}/needed")

    async def test_bad_paths(self) -> None:
        for segment in ("%00", "%FF", "%ED%A0%80", "%zz", "%", "%4"):
            await self.fails(400, "M_INVALID_PARAM", "PUT", f"{BASE}/raw/{segment}", {})
        await self.fails(400, "M_INVALID_PARAM", "GET", f"{BASE}/profile/alice")

    async def test_resource_limit(self) -> None:
        """Shows the body of HTTP-13."""
        answer = await self.fails(403, "M_RESOURCE_LIMIT_EXCEEDED", "GET", f"{BASE}/fail/resource")
        self.assertEqual(answer.body["admin_contact"], "mailto:admin@example.org")

    async def test_user_limit(self) -> None:
        """Shows HTTP-14."""
        answer = await self.fails(403, "M_USER_LIMIT_EXCEEDED", "GET", f"{BASE}/fail/user")
        self.assertEqual(answer.body["info_uri"], "https://example.org/limits")
        self.assertIs(answer.body["can_upgrade"], True)
        answer = await self.fails(403, "M_USER_LIMIT_EXCEEDED", "GET", f"{BASE}/fail/user_fixed")
        self.assertNotIn("can_upgrade", answer.body)


class DispatchTests(TestCase):
    def setUp(self) -> None:
        self.sample = Sample()
        self.client = self.sample.client

    async def test_empty_bodies(self) -> None:
        """Shows HTTP-6."""
        self.assertEqual(await self.client.put(f"{BASE}/raw/x", {}), (200, {}))
        self.assertEqual(await self.client.post(f"{BASE}/bodyless", {}), (200, {}))
        self.assertEqual(await self.client.post(f"{BASE}/bodyless"), (200, {}))
        self.assertEqual(await self.client.post(f"{BASE}/logout", token="alice"), (200, {}))
        self.assertEqual(await self.client.post(f"{BASE}/logout", {}, token="alice"), (200, {}))
        self.assertEqual(self.sample.notes.written, [{}, {}, {}])

    async def test_cors(self) -> None:
        """Shows HTTP-7."""
        methods = {"GET", "POST", "PUT", "DELETE", "OPTIONS"}
        for request in (
            ("GET", "/_matrix/client/versions"),
            ("GET", "/_matrix/client/v3/nothing"),
            ("PATCH", f"{BASE}/login"),
            ("GET", f"{BASE}/fail/crash"),
            ("GET", f"{BASE}/account/whoami"),
            ("POST", f"{BASE}/echo"),
            ("GET", f"{BASE}/odd/redirect"),
            ("GET", "/_matrix/media/v3/config"),
            ("OPTIONS", f"{BASE}/login"),
        ):
            headers = (await self.client.full(*request)).headers
            self.assertEqual({name: headers[name] for name in CORS}, CORS, request)
            allowed = set(headers["access-control-allow-methods"].split(", "))
            self.assertLessEqual(methods, allowed)
        federation = await self.client.full("GET", "/_matrix/federation/v1/version")
        self.assertNotIn("access-control-allow-origin", federation.headers)

    async def test_options(self) -> None:
        """Shows HTTP-8."""
        for path in (f"{BASE}/send", f"{BASE}/account/whoami", "/nowhere", "*", "/%zz"):
            answer = await self.client.full("OPTIONS", path)
            self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(self.sample.notes.written, [])

    async def test_json_content_type(self) -> None:
        """Shows HTTP-9."""
        for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json"}):
            answer = await self.client.full(
                "POST", f"{BASE}/echo", {"name": "Zoë ☃ 🦊"}, headers=headers
            )
            self.assertEqual((answer.status, answer.body["name"]), (200, "Zoë ☃ 🦊"))
            self.assertEqual(answer.headers["content-type"], "application/json")
        response = await self.sample.router.handle(
            self.client.build("POST", f"{BASE}/echo", {"name": "ë"})
        )
        self.assertIn("ë".encode(), response.body)

    async def test_path_decoding(self) -> None:
        """Shows HTTP-11."""
        room, event = "!a%2Fb%3Aexample.org", "%24c%2Fd%2525"
        answer = await self.client.get(f"{BASE}/rooms/{room}/event/{event}")
        self.assertEqual(answer.body, {"room_id": "!a/b:example.org", "event_id": "$c/d%25"})
        answer = await self.client.get(f"{BASE}/directory/room/%23a%2Fb%2520c%3Ah%3A8448")
        self.assertEqual(answer.body, {"alias": "#a/b%20c:h:8448"})
        answer = await self.client.put(f"{BASE}/rooms/!r:h/state/a%2Fb/%2F%2F+")
        self.assertEqual(answer.body, {"type": "a/b", "state_key": "//+"})
        answer = await self.client.get("/_matrix/client/%76ersions")
        self.assertEqual(answer.status, 200)

    async def test_state_paths(self) -> None:
        """Shows HTTP-12."""
        for end in ("", "/"):
            answer = await self.client.put(f"{BASE}/rooms/!r:h/state/m.room.name{end}")
            self.assertEqual(answer.body, {"type": "m.room.name", "state_key": ""})
        answer = await self.client.put(f"{BASE}/rooms/!r:h/state/m.room.member/@a:h")
        self.assertEqual(answer.body, {"type": "m.room.member", "state_key": "@a:h"})

    async def test_old_versions(self) -> None:
        answer = await self.client.post("/_matrix/client/r0/echo", {"name": "x"})
        self.assertEqual(answer.status, 200)
        self.assertEqual((await self.client.get("/_matrix/media/v1/config")).status, 200)

    async def test_query_values(self) -> None:
        path = f"{BASE}/page?from=a%26b+c&limit=5&via=x.org&via=y.org:80&full=true&extra=1"
        answer = await self.client.get(path)
        self.assertEqual(
            answer.body,
            {"from": "a&b c", "limit": 5, "via": ["x.org", "y.org:80"], "full": True},
        )
        self.assertEqual((await self.client.get(f"{BASE}/page")).body, {})
        self.assertEqual((await self.client.get(f"{BASE}/page?limit=5&limit=6")).body["limit"], 5)

    async def test_responses(self) -> None:
        answer = await self.client.full("GET", f"{BASE}/odd/x", address="192.0.2.1")
        self.assertEqual((answer.status, answer.body), (201, {"address": "192.0.2.1"}))
        self.assertEqual(answer.headers["x-odd"], "yes")
        answer = await self.client.full("GET", f"{BASE}/odd/redirect")
        self.assertEqual(answer.headers["location"], "https://example.org/")
        self.assertEqual((await self.client.full("GET", f"{BASE}/odd/none")).body, b"")

    async def test_head(self) -> None:
        answer = await self.client.full("HEAD", "/_matrix/client/versions")
        self.assertEqual(answer.status, 200)

    async def test_streamed_body(self) -> None:
        answer = await self.client.post(f"{BASE}/upload", body=b"x" * 70_000)
        self.assertEqual(answer, (200, {"size": 70_000}))

    async def test_observer(self) -> None:
        await self.client.get(f"{BASE}/rooms/!secret:h/event/$e")
        await self.client.get("/nowhere")
        await self.client.put(f"{BASE}/send")
        self.assertEqual(
            [seen[:3] for seen in self.sample.seen.requests],
            [
                (f"{BASE}/rooms/{{room_id}}/event/{{event_id}}", "GET", 200),
                ("unknown", "GET", 404),
                (f"{BASE}/send", "PUT", 401),
            ],
        )
        self.assertEqual(self.sample.router.running, 0)


class AuthTests(TestCase):
    def setUp(self) -> None:
        self.sample = Sample()
        self.client = self.sample.client

    async def asks(self, method: str, path: str, token: str | None) -> tuple[int, str | None]:
        answer = await self.client.request(method, path, token=token)
        return answer.status, answer.body.get("errcode")

    async def test_tokens(self) -> None:
        """Shows HTTP-15."""
        path = f"{BASE}/account/whoami"
        self.assertEqual(await self.asks("GET", path, None), (401, "M_MISSING_TOKEN"))
        self.assertEqual(await self.asks("GET", path, "wrong"), (401, "M_UNKNOWN_TOKEN"))
        self.assertEqual(await self.asks("GET", path, "alice"), (200, None))
        for header in ("Basic alice", "Bearer", "Bearer ", "alice"):
            answer = await self.client.get(path, headers={"Authorization": header})
            self.assertEqual(answer.body["errcode"], "M_MISSING_TOKEN")
        answer = await self.client.get(path, headers={"Authorization": "bearer alice"})
        self.assertEqual(answer.status, 200)

    async def test_query_token(self) -> None:
        """Shows HTTP-16: refused, unless switched on; and not logged."""
        path = f"{BASE}/account/whoami?access_token=alice"
        self.assertEqual(await self.asks("GET", path, None), (401, "M_MISSING_TOKEN"))
        old = Sample(query_tokens=lambda token: True)
        self.assertEqual((await old.client.get(path)).status, 200)
        answer = await old.client.get(path, headers={"Authorization": "Bearer wrong"})
        self.assertEqual(answer.body["errcode"], "M_UNKNOWN_TOKEN")
        await old.client.get(f"{BASE}/fail/crash?access_token=alice")
        self.assertEqual(len(old.log.lines), 1)
        self.assertNotIn("alice", repr(old.log.lines))
        self.assertNotIn("alice", repr(old.client.build("GET", path)))

    async def test_guests(self) -> None:
        path = f"{BASE}/account/whoami"
        self.assertEqual(await self.asks("GET", path, "guest"), (403, "M_GUEST_ACCESS_FORBIDDEN"))
        self.assertEqual(await self.asks("POST", f"{BASE}/logout", "guest"), (200, None))

    async def test_optional(self) -> None:
        path = f"{BASE}/profile/@bob:h"
        self.assertIsNone((await self.client.get(path)).body["asked_by"])
        answer = await self.client.get(path, token="alice")
        self.assertEqual(answer.body["asked_by"], "@alice:example.org")
        self.assertEqual(await self.asks("GET", path, "wrong"), (401, "M_UNKNOWN_TOKEN"))

    async def test_special(self) -> None:
        for path, good in ((f"{BASE}/bridge", "bridge"), ("/_synapse/admin/v1/server", "admin")):
            self.assertEqual(await self.asks("GET", path, None), (401, "M_MISSING_TOKEN"))
            self.assertEqual(await self.asks("GET", path, "alice"), (403, "M_FORBIDDEN"))
            self.assertEqual(await self.asks("GET", path, good), (200, None))

    async def test_locked_and_suspended(self) -> None:
        answer = await self.client.get(f"{BASE}/account/whoami", token="locked")
        self.assertEqual((answer.status, answer.body["errcode"]), (401, "M_USER_LOCKED"))
        self.assertIs(answer.body["soft_logout"], True)
        self.assertEqual(await self.asks("POST", f"{BASE}/logout", "locked"), (200, None))
        self.assertEqual(
            await self.asks("PUT", f"{BASE}/send", "suspended"), (403, "M_USER_SUSPENDED")
        )
        self.assertEqual(await self.asks("GET", f"{BASE}/account/whoami", "suspended"), (200, None))

    async def test_federation(self) -> None:
        path = "/_matrix/federation/v1/send/1"
        self.assertEqual((await self.client.put(path)).status, 401)
        answer = await self.client.put(path, headers={"Authorization": "remote.org"})
        self.assertEqual(answer.body, {"txn": "1", "origin": "remote.org"})


class LimitTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        limits = RateLimits(
            message=Rate(per_second=0.5, burst=2), login=Rate(per_second=0.1, burst=1)
        )
        limiter = MemoryRateLimiter(limits, self.clock)
        self.sample = Sample(clock=self.clock, rate_limiter=limiter)
        self.client = self.sample.client

    async def test_limit(self) -> None:
        """Shows HTTP-10."""
        for _ in range(2):
            self.assertEqual((await self.client.put(f"{BASE}/send", token="alice")).status, 200)
        answer = await self.client.full("PUT", f"{BASE}/send", token="alice")
        self.assertEqual((answer.status, answer.body["errcode"]), (429, "M_LIMIT_EXCEEDED"))
        self.assertEqual(answer.headers["retry-after"], "2")
        self.assertEqual(answer.body["retry_after_ms"], 2000)
        self.assertEqual(answer.headers["access-control-allow-origin"], "*")
        self.assertEqual(len(self.sample.notes.written), 2)
        self.clock.advance(2)
        self.assertEqual((await self.client.put(f"{BASE}/send", token="alice")).status, 200)

    async def test_by_user_or_address(self) -> None:
        for _ in range(3):
            await self.client.put(f"{BASE}/send", token="alice")
        self.assertEqual((await self.client.put(f"{BASE}/send", token="admin")).status, 200)
        for _ in range(5):
            self.assertEqual((await self.client.put(f"{BASE}/send", token="bridge")).status, 200)
        for address, status in (("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)):
            answer = await self.client.post(f"{BASE}/login", {}, address=address)
            self.assertEqual(answer.status, status)

    def test_unknown_class(self) -> None:
        @endpoint("GET", "/x", auth=Auth.NONE, rate="nonsense")
        async def get_x() -> JsonObject:
            return {}

        limiter = MemoryRateLimiter(RateLimits(), self.clock)
        log = CapturedLog().logger
        with self.assertRaisesRegex(LookupError, "nonsense"):
            Router([get_x], {}, Tokens(), clock=self.clock, log=log, rate_limiter=limiter)


class RunningTests(TestCase):
    """Requests that wait."""

    def setUp(self) -> None:
        self.waiting: list[Deferred[str]] = []
        self.ids: list[str | None] = []

        @endpoint("GET", "/wait", auth=Auth.GUEST_OK, long_poll=True)
        async def get_wait(requester: Requester) -> JsonObject:
            self.ids.append(REQUEST_ID.get())
            self.waiting.append(Deferred())
            text = await self.waiting[-1]
            self.ids.append(REQUEST_ID.get())
            return {"text": text}

        self.log = CapturedLog()
        self.router = Router([get_wait], {}, Tokens(), clock=Clock(), log=self.log.logger)
        self.client = Client(self.router, "alice")

    async def test_request_id(self) -> None:
        answers = [Deferred.fromCoroutine(self.client.get("/wait")) for _ in range(2)]
        self.assertEqual(self.router.running, 2)
        for waiting in self.waiting:
            waiting.callback("x")
        for answer in answers:
            self.assertEqual((await answer).body, {"text": "x"})
        self.assertEqual(self.ids[:2], self.ids[2:])
        self.assertNotEqual(self.ids[0], self.ids[1])
        self.assertIsNone(REQUEST_ID.get())

    async def test_log(self) -> None:
        """For debugging each request is logged, without the query: it may hold a token."""
        log = CapturedLog(logging.DEBUG)
        router = Router([], {}, Tokens(), clock=Clock(), log=log.logger)
        await Client(router).get("/wait?access_token=alice")
        expected = {"method": "GET", "path": "/wait", "status": 404, "seconds": 0.0}
        self.assertEqual(log.lines, [{"level": "debug", "event": "request", **expected}])

    async def test_cancelled(self) -> None:
        request = self.client.build("GET", "/wait")
        answer = Deferred.fromCoroutine(self.router.handle(request))
        self.assertTrue(request.is_cancellable)
        request.is_cancelled = True
        answer.cancel()
        with self.assertRaises(CancelledError):
            await answer
        self.assertEqual((self.router.running, self.log.lines), (0, []))

    async def test_cancelled_inside(self) -> None:
        """A cancellation that the transport did not ask for is a fault like any other."""
        answer = Deferred.fromCoroutine(self.client.get("/wait"))
        self.waiting[0].cancel()
        self.assertEqual((await answer).status, 500)
        self.assertEqual(len(self.log.lines), 1)


class CheckTests(TestCase):
    """The test client notices answers that are not what was declared."""

    async def test_wrong_answer(self) -> None:
        with self.assertRaisesRegex(AssertionError, "get_wrong"):
            await Sample().client.get(f"{BASE}/wrong")

    async def test_wrong_error(self) -> None:
        @endpoint("GET", "/x", auth=Auth.NONE)
        async def get_x() -> Response:
            return Response(400, {"oops": True})

        router = Router([get_x], {}, Tokens(), clock=Clock(), log=CapturedLog().logger)
        with self.assertRaisesRegex(AssertionError, "standard error"):
            await Client(router).get("/x")

    async def test_one_of_two(self) -> None:
        answers = iter([{"name": "x"}, {}, []])

        @endpoint("GET", "/x", auth=Auth.NONE)
        async def get_x() -> Echo | Empty:
            return next(answers)  # type: ignore[return-value]

        router = Router([get_x], {}, Tokens(), clock=Clock(), log=CapturedLog().logger)
        self.assertEqual((await Client(router).get("/x")).body, {"name": "x"})
        self.assertEqual((await Client(router).get("/x")).body, {})
        with self.assertRaisesRegex(AssertionError, "get_x"):
            await Client(router).get("/x")
