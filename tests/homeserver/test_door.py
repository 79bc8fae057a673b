"""What listeners answer."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from config.model import Serves
from homeserver.door import Door, Health
from homeserver.telemetry.metrics import Metrics
from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import Response


class _Router:
    """Answers everything."""

    def body_plan(self, request: Request) -> BodyPlan:
        return BodyPlan(100, stream=False)

    async def handle(self, request: Request) -> Response:
        return Response(200, b"routed")


class _Database:
    """Answers a probe when told to."""

    def __init__(self) -> None:
        self.probes: list[Deferred[None]] = []

    async def read(self, fn: Any) -> None:
        probe: Deferred[None] = Deferred()
        self.probes.append(probe)
        await probe


def body_of(response: Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


class DoorTests(TestCase):
    def setUp(self) -> None:
        self.db = _Database()
        self.clock = Clock()
        self.health = Health(self.db, self.clock)  # type: ignore[arg-type]
        self.metrics = Metrics()

    def door(self, *serves: Serves) -> Door:
        return Door(_Router(), serves, self.health, self.metrics)

    def get(self, door: Door, path: str) -> Deferred[Response]:
        return ensureDeferred(door.handle(Request("GET", path)))

    def answer(self, door: Door, path: str) -> Response:
        response: Response = self.successResultOf(self.get(door, path))
        return response

    def is_routed(self, door: Door, path: str) -> bool:
        return self.answer(door, path).body == b"routed"

    def test_a_listener_answers_what_it_serves(self) -> None:
        paths: dict[Serves, str] = {
            "client": "/_matrix/client/v3/sync",
            "federation": "/_matrix/federation/v1/version",
            "media": "/_matrix/client/v1/media/download/a/b",
            "admin": "/_synapse/admin/v1/register",
        }
        for name, path in paths.items():
            door = self.door(name)
            self.assertTrue(self.is_routed(door, path), path)
            for other, other_path in paths.items():
                if other != name and not (name == "client" and other == "media"):
                    self.assertFalse(self.is_routed(door, other_path), (name, other_path))

    def test_what_servers_ask_for(self) -> None:
        door, other = self.door("federation"), self.door("client", "media")
        for path in (
            "/_matrix/key/v2/server",
            "/_matrix/key/v2/query/a.example",
            "/.well-known/matrix/server",
            "/_matrix/federation/v1/version",
        ):
            self.assertTrue(self.is_routed(door, path), path)
            self.assertFalse(self.is_routed(other, path), path)

    def test_what_is_not_served_is_not_known(self) -> None:
        response = self.answer(self.door("client"), "/_synapse/admin/v1/register")
        self.assertEqual(response.status, 404)
        self.assertEqual(json.loads(body_of(response))["errcode"], "M_UNRECOGNIZED")
        self.assertEqual(response.header("access-control-allow-origin"), "*")

    def test_paths_of_nobody_go_to_the_router(self) -> None:
        self.assertTrue(self.is_routed(self.door("client"), "/nonsense"))
        self.assertFalse(self.is_routed(self.door("metrics", "health"), "/nonsense"))

    def test_only_small_bodies_are_read_for_what_is_not_served(self) -> None:
        """They are answered with 404 as other requests are, and not with 413."""
        door = self.door("client")
        plan = door.body_plan(Request("POST", "/_synapse/admin/v1/register"))
        self.assertEqual(plan.max_bytes, 65_536)
        answer = self.successResultOf(
            ensureDeferred(door.handle(Request("POST", "/_synapse/admin/v1/register", body=b"{}")))
        )
        self.assertEqual(answer.status, 404)
        plan = door.body_plan(Request("POST", "/_matrix/client/v3/login"))
        self.assertEqual(plan.max_bytes, 100)

    def test_metrics(self) -> None:
        self.metrics.request("/x", "GET", 200, 0.1)
        response = self.answer(self.door("metrics"), "/metrics")
        self.assertIn(b"hearth_requests_total", body_of(response))
        self.assertEqual(self.answer(self.door("health"), "/metrics").status, 404)
        self.assertNotIn(b"hearth_", body_of(self.answer(self.door("client"), "/metrics")))

    def test_healthy(self) -> None:
        waiting = self.get(self.door("health"), "/health")
        self.assertNoResult(waiting)
        self.db.probes[0].callback(None)
        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_the_database_fails(self) -> None:
        waiting = self.get(self.door("health"), "/health")
        self.db.probes[0].errback(RuntimeError("away"))
        self.assertEqual(self.successResultOf(waiting).status, 503)

    def test_the_database_hangs(self) -> None:
        door = self.door("health")
        first = self.get(door, "/health")
        self.clock.advance(4)
        second = self.get(door, "/health")
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(first).status, 503)
        self.assertEqual(len(self.db.probes), 1, "one probe at a time")
        self.db.probes[0].callback(None)
        self.assertEqual(self.successResultOf(second).status, 200)
        third = self.get(door, "/health")
        self.db.probes[1].callback(None)
        self.assertEqual(self.successResultOf(third).status, 200)

    def test_stopping(self) -> None:
        waiting = self.get(self.door("health"), "/health")
        self.health.is_stopping = True
        self.db.probes[0].callback(None)
        self.assertEqual(self.successResultOf(waiting).status, 503)
        self.assertEqual(self.answer(self.door("health"), "/health").status, 503)
