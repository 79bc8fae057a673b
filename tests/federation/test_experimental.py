"""Servers ask each other what is not in the specification: MSC3720, MSC3983, MSC4370, and the
complexity of rooms."""

from __future__ import annotations

from typing import Any

from federation.client.errors import RemoteHttpError
from federation.client.requests import FederationClient
from tests.federation.test_queries import TwoServersCase
from tests.support.keys import ALGORITHM, Device
from tests.support.room_case import q

CLAIM = "/_matrix/client/unstable/org.matrix.msc3983/keys/claim"
STATUS = "/_matrix/client/unstable/org.matrix.msc3720/account_status"
UNSTABLE = "/_matrix/federation/unstable"


class ExperimentalTest(TwoServersCase):
    async def ask(self, path: str, body: Any = None) -> Any:
        """What Bob's server answers Alice's."""
        client = self.here.homeserver.services[FederationClient]
        try:
            if body is None:
                return await client.get_json(self.there.name, UNSTABLE + path)
            return await client.post_json(self.there.name, UNSTABLE + path, body)
        except RemoteHttpError as error:
            return error.status, error.errcode

    async def test_statuses_of_accounts(self) -> None:
        """Of MSC3720: of this server, and of another that answers for its own users alone."""
        await self.begin()
        gone = await self.there.register("gone")
        auth = {"type": "m.login.password", "password": "wonderland"}
        auth["identifier"] = {"type": "m.id.user", "user": "gone"}  # type: ignore[assignment]
        await gone.ok("POST", "/account/deactivate", {"auth": auth})
        nobody = f"@nobody:{self.there.name}"
        away = "@x:203.0.113.9"
        users = [self.alice.user_id, self.bob.user_id, gone.user_id, nobody, away]
        answer = await self.alice.ok("POST", STATUS, {"user_ids": users})
        good = {"exists": True, "deactivated": False}
        expected = {
            self.alice.user_id: good,
            self.bob.user_id: good,
            gone.user_id: {"exists": True, "deactivated": True},
            nobody: {"exists": False},
        }
        self.assertEqual(answer, {"account_statuses": expected, "failures": [away]})
        self.assertEqual(await self.alice.ok("POST", STATUS, {"user_ids": []}), {})
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"user_ids": ["bob"]}, "M_INVALID_PARAM"),
            ({"user_ids": [self.bob.user_id] * 1001}, "M_INVALID_PARAM"),
            ({"user_ids": {}}, "M_BAD_JSON"),
        ):
            self.assert_error(await self.alice.call("POST", STATUS, body), 400, errcode)
        path = "/org.matrix.msc3720/account_status"
        refused = await self.ask(path, {"user_ids": [self.alice.user_id]})
        self.assertEqual(refused, (400, "M_INVALID_PARAM"))
        capabilities = (await self.alice.ok("GET", "/capabilities"))["capabilities"]
        self.assertEqual(capabilities["org.matrix.msc3720.account_status"], {"enabled": True})

    async def test_several_one_time_keys(self) -> None:
        """Of MSC3983: as many as are asked for, each once, then the fallback key."""
        await self.begin()
        for user in (self.alice, self.bob):
            device = Device(user)
            keys = device.one_time_keys("a", "b", "c", "d")
            fallback = {f"{ALGORITHM}:f": device.one_time_key(fallback=True)}
            await device.upload(device_keys=device.keys(), one_time_keys=keys)
            await device.upload(fallback_keys=fallback)

            async def claim(count: int, user: Any = user) -> Any:
                wanted = {user.user_id: {user.device_id: [ALGORITHM] * count}}
                answer = await self.alice.ok("POST", CLAIM, {"one_time_keys": wanted})
                self.assertEqual(answer["failures"], {})
                return answer["one_time_keys"][user.user_id][user.device_id]

            first, second = await claim(3), await claim(3)
            self.assertEqual(len(first), 3)
            self.assertEqual(first.keys() | second.keys(), keys.keys() | fallback.keys())
            self.assertFalse(first.keys() & second.keys())
            self.assertEqual(await claim(1), second | fallback if len(second) == 1 else fallback)
            self.assertEqual({**keys, **fallback}, {**first, **second})
        for bad in ([ALGORITHM] * 51, ["a\0b"], [1]):
            wanted = {self.alice.user_id: {self.alice.device_id: bad}}
            answer = await self.alice.call("POST", CLAIM, {"one_time_keys": wanted})
            self.assertEqual(answer.status, 400)

    async def test_heads_and_complexity(self) -> None:
        await self.begin()
        room_id = await self.bob.create_room(preset="public_chat")
        private = await self.bob.create_room(preset="private_chat")
        heads = "/org.matrix.msc4370/extremities/"
        self.assertEqual(await self.ask(heads + q(room_id)), (403, "M_FORBIDDEN"))
        self.assertEqual(await self.ask(heads + q("!x:y")), (404, "M_NOT_FOUND"))
        self.assertEqual(await self.ask(heads + "nonsense"), (400, "M_INVALID_PARAM"))
        await self.alice.ok("POST", f"/join/{q(room_id)}", query={"via": self.there.name})
        event_id = await self.bob.send(room_id)
        self.assertEqual(await self.ask(heads + q(room_id)), {"prev_events": [event_id]})
        state = await self.bob.ok("GET", f"/rooms/{q(room_id)}/state")
        answer = await self.ask(f"/rooms/{q(room_id)}/complexity")
        self.assertEqual(answer, {"v1": round(len(state) / 500, 2)})
        for room in (private, "!x:y"):
            answer = await self.ask(f"/rooms/{q(room)}/complexity")
            self.assertEqual(answer, (404, "M_NOT_FOUND"))
