"""Server discovery as a script of questions and answers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from federation.client.names import SrvRecord
from federation.client.resolver import AskSrv, AskWellKnown, NoSuchService, discovery
from federation.client.route import Endpoint, Route
from homeserver.core.ids import ServerName

RECORD = SrvRecord(10, 5, 777, "target.example", 300)
TARGET = Endpoint("target.example", 777, 10, 5, from_srv=True)


def script(name: str, *exchange: tuple[Any, Any]) -> Route:
    """Run discovery: each question must be the expected one, and gets its answer."""
    steps = discovery(ServerName.parse(name))
    answer: Any = None
    asked = []
    try:
        for expected, reply in exchange:
            question = steps.send(answer)
            asked.append(question)
            assert question == expected, f"asked {question}, not {expected}"
            answer = reply
        question = steps.send(answer)
    except StopIteration as end:
        assert len(asked) == len(exchange), "asked less than expected"
        route: Route = end.value
        return route
    raise AssertionError(f"asked {question}")


def delegating(host: str, to: str | None) -> tuple[AskWellKnown, ServerName | None]:
    return AskWellKnown(host), None if to is None else ServerName.parse(to)


def fed(host: str, *records: SrvRecord) -> tuple[AskSrv, Any]:
    return AskSrv(f"_matrix-fed._tcp.{host}"), records


def old(host: str, *records: SrvRecord) -> tuple[AskSrv, Any]:
    return AskSrv(f"_matrix._tcp.{host}"), records


class DiscoveryTests(TestCase):
    """Shows KEY-1, KEY-2: the order of the steps, and the names that each gives."""

    def check(self, route: Route, step: str, host: str, tls: str, *endpoints: Endpoint) -> None:
        self.assertEqual(route, Route(step, host, tls, endpoints))

    def test_step_1(self) -> None:
        """Shows KEY-1, KEY-2."""
        at = Endpoint
        self.check(script("1.2.3.4"), "1", "1.2.3.4", "1.2.3.4", at("1.2.3.4", 8448))
        self.check(script("1.2.3.4:80"), "1", "1.2.3.4:80", "1.2.3.4", at("1.2.3.4", 80))
        self.check(script("[2a01::1]"), "1", "[2a01::1]", "2a01::1", at("2a01::1", 8448))
        self.check(script("[2a01::1]:80"), "1", "[2a01::1]:80", "2a01::1", at("2a01::1", 80))

    def test_step_2(self) -> None:
        """Shows KEY-1, KEY-2."""
        route = script("a.example:80")
        self.check(route, "2", "a.example:80", "a.example", Endpoint("a.example", 80))

    def test_step_3_1(self) -> None:
        """Shows KEY-1, KEY-2."""
        route = script("a.example", delegating("a.example", "1.2.3.4"))
        self.check(route, "3.1", "1.2.3.4", "1.2.3.4", Endpoint("1.2.3.4", 8448))
        route = script("a.example", delegating("a.example", "[2a01::1]:80"))
        self.check(route, "3.1", "[2a01::1]:80", "2a01::1", Endpoint("2a01::1", 80))

    def test_step_3_2(self) -> None:
        """Shows KEY-1, KEY-2."""
        route = script("a.example", delegating("a.example", "b.example:80"))
        self.check(route, "3.2", "b.example:80", "b.example", Endpoint("b.example", 80))

    def test_step_3_3(self) -> None:
        """Shows KEY-1, KEY-2."""
        route = script("a.example", delegating("a.example", "b.example"), fed("b.example", RECORD))
        self.check(route, "3.3", "b.example", "b.example", TARGET)

    def test_step_3_4(self) -> None:
        """Shows KEY-1, KEY-2."""
        route = script(
            "a.example",
            delegating("a.example", "b.example"),
            fed("b.example"),
            old("b.example", RECORD),
        )
        self.check(route, "3.4", "b.example", "b.example", TARGET)

    def test_step_3_5(self) -> None:
        """Shows KEY-1, KEY-2."""
        route = script(
            "a.example", delegating("a.example", "b.example"), fed("b.example"), old("b.example")
        )
        self.check(route, "3.5", "b.example", "b.example", Endpoint("b.example", 8448))

    def test_steps_4_to_6(self) -> None:
        """Shows KEY-1, KEY-2."""
        silent = delegating("a.example", None)
        route = script("a.example", silent, fed("a.example", RECORD))
        self.check(route, "4", "a.example", "a.example", TARGET)
        route = script("a.example", silent, fed("a.example"), old("a.example", RECORD))
        self.check(route, "5", "a.example", "a.example", TARGET)
        route = script("a.example", silent, fed("a.example"), old("a.example"))
        self.check(route, "6", "a.example", "a.example", Endpoint("a.example", 8448))

    def test_records_that_deny_the_service(self) -> None:
        """Shows KEY-4."""
        nothing = SrvRecord(0, 0, 0, "", 300)
        exchange = (delegating("a.example", None), fed("a.example", nothing))
        self.assertRaises(NoSuchService, script, "a.example", *exchange)


class RouteTests(TestCase):
    def test_connections_are_shared_only_where_all_names_are_equal(self) -> None:
        plain = Route("6", "a.example", "a.example", (Endpoint("a.example", 8448),))
        same = Route("3.5", "a.example", "a.example", (Endpoint("a.example", 8448),))
        self.assertEqual(plain.key, same.key)
        for other in (
            Route("2", "a.example:8448", "a.example", plain.endpoints),
            Route("6", "a.example", "b.example", plain.endpoints),
            Route("6", "a.example", "a.example", (Endpoint("a.example", 443),)),
        ):
            self.assertNotEqual(plain.key, other.key)
