"""Publishing keys, and being a notary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from twisted.internet.task import Clock

from config.model import Rate, RateLimits
from federation.client.keyring import Keyring, Pauses
from federation.server import keys
from federation.server.keys import MAX_SERVERS
from federation.server.notary import MAX_ASKED, Notary
from federation.server.own_keys import OwnKeys
from homeserver.core.errors import unknown_token
from homeserver.core.signing import parse_verify_key, verify_json
from homeserver.core.types import JsonObject
from homeserver.web.limits import MemoryRateLimiter
from homeserver.web.request import Request, Requester
from homeserver.web.router import Router
from tests.federation.key_servers import DAY, HOUR, FakeKeyClient, make_key
from tests.support.client import Client
from tests.support.databases import DatabaseTestCase, on_each_database

NAME = "hearth.test"
OWN = make_key("own", 9)
AHEAD = make_key("ahead", 10)
RETIRED = replace(make_key("retired", 11), expired_ts=12345)
KEY = make_key("1")
NEXT = make_key("2", 2)
NOW = 100 * DAY


class NoUsers:
    async def authenticate(self, token: str, request: Request) -> Requester:
        raise unknown_token()


@on_each_database
class KeysTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW / 1000)
        self.client = FakeKeyClient(self.clock)
        self.a = self.client.add("a.example", KEY)
        db = await self.open()
        own = (OWN, AHEAD, RETIRED)
        self.keyring = Keyring(db, self.client, self.clock, NAME, own)
        own_keys = OwnKeys(NAME, own, self.clock)
        rates = RateLimits(key_queries=Rate(per_second=1, burst=MAX_ASKED + 50))
        limiter = MemoryRateLimiter(rates, self.clock)
        services: dict[Any, Any] = {
            OwnKeys: own_keys,
            Notary: Notary(db, self.keyring, own_keys, self.clock, limiter),
        }
        router = Router(
            keys.ENDPOINTS, services, NoUsers(), clock=self.clock, log=structlog.get_logger()
        )
        self.http = Client(router)

    def now(self) -> int:
        return int(self.clock.seconds() * 1000)

    async def ok(self, method: str, path: str, json: Any = None) -> Any:
        status, body = await self.http.request(method, f"/_matrix/key/v2{path}", json)
        self.assertEqual(status, 200, body)
        return body

    async def query(self, server: str = "a.example", **query: int) -> list[JsonObject]:
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        found: list[JsonObject] = (await self.ok("GET", f"/query/{server}?{asked}"))["server_keys"]
        return found

    async def post(self, **server_keys: Any) -> list[JsonObject]:
        named = {name.replace("_", "."): wanted for name, wanted in server_keys.items()}
        found: list[JsonObject] = (await self.ok("POST", "/query", {"server_keys": named}))[
            "server_keys"
        ]
        return found

    def check(self, answer: JsonObject, key: Any = KEY) -> None:
        """Both signatures are there and right."""
        verify_json(answer, answer["server_name"], key.key_id, key.verify_key)
        verify_json(answer, NAME, OWN.key_id, OWN.verify_key)

    async def test_an_address_makes_this_server_ask_only_so_many(self) -> None:
        """Whatever it asks for; and what is stored is answered all the same."""
        self.check((await self.query())[0])
        for turn in range(3):
            names = [f"n{turn}_{number}.example" for number in range(MAX_ASKED)]
            self.assertEqual(await self.post(**{name: {} for name in names}), [])
        self.assertEqual(len(self.client.asked), MAX_ASKED + 50)
        self.check((await self.query())[0])
        self.assertEqual(len(self.client.asked), MAX_ASKED + 50)
        self.clock.advance(1)
        await self.query("other.example")
        self.assertEqual(len(self.client.asked), MAX_ASKED + 51)

    async def test_own_keys(self) -> None:
        """Shows KEY-10, KEY-15."""
        answer = await self.ok("GET", "/server")
        self.assertEqual(answer["server_name"], NAME)
        self.assertEqual(
            answer["verify_keys"],
            {
                "ed25519:own": {"key": OWN.public_base64},
                "ed25519:ahead": {"key": AHEAD.public_base64},
            },
        )
        self.assertEqual(
            answer["old_verify_keys"],
            {"ed25519:retired": {"key": RETIRED.public_base64, "expired_ts": 12345}},
        )
        for key_id, entry in answer["verify_keys"].items():
            verify_json(answer, NAME, key_id, parse_verify_key(entry["key"]))
        self.assertEqual(set(answer["signatures"][NAME]), set(answer["verify_keys"]))

    async def test_own_keys_are_always_valid_for_an_hour_more(self) -> None:
        """Shows KEY-10."""
        seen = set()
        for _ in range(100):
            answer = await self.ok("GET", "/server")
            self.assertGreaterEqual(answer["valid_until_ts"], self.now() + HOUR)
            verify_json(answer, NAME, OWN.key_id, OWN.verify_key)
            seen.add(answer["valid_until_ts"])
            self.clock.advance(20 * 60)
        self.assertGreater(len(seen), 10)

    async def test_old_forms_of_the_path(self) -> None:
        """Shows KEY-10."""
        answer = await self.ok("GET", "/server")
        for path in ("/server/", "/server/ed25519:own", "/server/any"):
            self.assertEqual(await self.ok("GET", path), answer)

    async def test_a_notary_adds_its_signature(self) -> None:
        """Shows KEY-11."""
        (answer,) = await self.query()
        self.check(answer)
        self.assertEqual({**answer, "signatures": 0}, {**self.a.answer(), "signatures": 0})
        self.assertEqual(await self.query("a.example/ed25519:1"), [answer])
        self.assertEqual(await self.query("a.example/ed25519:none"), [])
        self.assertEqual(await self.post(a_example={}), [answer])

    async def test_several_servers(self) -> None:
        """Shows KEY-11."""
        self.client.add("b.example", NEXT)
        answers = await self.post(
            a_example={"ed25519:1": {}},
            b_example={"ed25519:2": {"minimum_valid_until_ts": NOW + 5}},
            c_example={},
        )
        found = {answer["server_name"]: answer for answer in answers}
        self.assertEqual(set(found), {"a.example", "b.example"})
        self.check(found["a.example"])
        self.check(found["b.example"], NEXT)
        self.assertEqual(await self.post(), [])

    async def test_own_keys_of_the_notary(self) -> None:
        """Shows KEY-11."""
        own = await self.ok("GET", "/server")
        self.assertEqual(await self.query(NAME), [own])
        self.assertEqual(await self.post(hearth_test={"ed25519:own": {}}), [own])
        self.assertEqual(self.client.asked, [])

    async def test_stored_answers_are_used_for_half_their_life(self) -> None:
        """Shows KEY-11."""
        first = await self.query()
        self.clock.advance(DAY / 2000 - 1)
        self.assertEqual(await self.query(), first)
        self.assertEqual(len(self.client.asked), 1)
        self.clock.advance(1)
        (second,) = await self.query()
        self.assertEqual(second["valid_until_ts"], self.now() + DAY)
        self.assertEqual(len(self.client.asked), 2)

    async def test_minimum_valid_until_ts(self) -> None:
        """Shows KEY-11."""
        await self.query()
        self.clock.advance(HOUR / 1000)
        (answer,) = await self.query(minimum_valid_until_ts=NOW + DAY)
        self.assertEqual(answer["valid_until_ts"], NOW + DAY)
        self.assertEqual(len(self.client.asked), 1)
        for path in ("a.example", "a.example/ed25519:1"):
            minimum = self.now() + DAY
            (answer,) = await self.query(path, minimum_valid_until_ts=minimum)
            self.assertEqual(answer["valid_until_ts"], minimum)
            self.clock.advance(HOUR / 1000)
        minimum = self.now() + DAY
        wanted = {"ed25519:1": {"minimum_valid_until_ts": minimum}}
        (answer,) = await self.post(a_example=wanted)
        self.assertEqual(answer["valid_until_ts"], minimum)
        self.assertEqual(len(self.client.asked), 4)

    async def test_the_keys_of_a_dead_server(self) -> None:
        """Shows KEY-11, KEY-12."""
        answers = await self.query()
        self.a.is_up = False
        self.clock.advance(3 * DAY / 1000)
        self.assertEqual(await self.query(), answers)
        self.assertEqual(await self.query(minimum_valid_until_ts=self.now() + DAY), answers)
        self.assertEqual(await self.query("a.example/ed25519:1"), answers)
        self.assertEqual(await self.query("b.example"), [])

    async def test_a_spurious_answer_overwrites_nothing(self) -> None:
        """Shows KEY-12."""
        (good,) = await self.query("a.example/ed25519:1")
        spurious = [
            lambda: self.a.keys.__setitem__(slice(None), [NEXT]),
            lambda: self.a.keys.__setitem__(slice(None), [make_key("1", 8)]),
            lambda: self.a.keys.clear(),
            lambda: setattr(self.a, "name", "other.example"),
        ]
        for change in spurious:
            self.a.keys, self.a.name = [KEY], "a.example"
            change()
            self.clock.advance(2 * Pauses.LONGEST / 1000)
            asked = len(self.client.asked)
            answers = await self.query("a.example/ed25519:1", minimum_valid_until_ts=NOW + 2 * DAY)
            self.assertEqual(len(self.client.asked), asked + 1)
            self.assertEqual(answers, [good])
        self.assertIn(good, await self.query())

    async def test_the_newest_answer_comes_first(self) -> None:
        """Shows KEY-12."""
        await self.query()
        self.a.keys = [NEXT]
        self.clock.advance(DAY / 1000)
        first, second = await self.query()
        self.assertEqual(set(first["verify_keys"]), {"ed25519:2"})
        self.assertEqual(set(second["verify_keys"]), {"ed25519:1"})

    async def test_queries_have_bounds(self) -> None:
        """Shows KEY-11."""
        many: JsonObject = {f"s{number}.example": {} for number in range(MAX_SERVERS + 1)}
        status, body = await self.http.post("/_matrix/key/v2/query", {"server_keys": many})
        self.assertEqual((status, body["errcode"]), (413, "M_TOO_LARGE"))
        one: JsonObject = {"a.example": {f"ed25519:{number}": {} for number in range(5001)}}
        status, body = await self.http.post("/_matrix/key/v2/query", {"server_keys": one})
        self.assertEqual((status, body["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual(self.client.asked, [])
        del many["s0.example"]
        await self.ok("POST", "/query", {"server_keys": many})
        self.assertEqual(len(self.client.asked), MAX_ASKED)

    async def test_malformed_queries(self) -> None:
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"server_keys": []}, "M_BAD_JSON"),
            ({"server_keys": {"a.example": {"ed25519:1": 3}}}, "M_BAD_JSON"),
            ({"server_keys": {"not a name": {}}}, "M_INVALID_PARAM"),
        ):
            status, answer = await self.http.post("/_matrix/key/v2/query", body)
            self.assertEqual((status, answer["errcode"]), (400, errcode), body)
        for path in ("a%20b", "a.example?minimum_valid_until_ts=soon"):
            status, answer = await self.http.get(f"/_matrix/key/v2/query/{path}")
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"), path)
