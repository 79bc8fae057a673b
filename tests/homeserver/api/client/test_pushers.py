"""Pushers over the API."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.homeserver.core.test_pushers import URL, pusher
from tests.support.server import TestServer, User, make_server


async def set_pusher(user: User, **changes: Any) -> None:
    """Set a pusher that must be accepted."""
    await user.ok("POST", "/pushers/set", pusher(**changes))


async def pushers_of(user: User) -> Any:
    """The user's pushers."""
    return (await user.ok("GET", "/pushers"))["pushers"]


async def login(server: TestServer, user: User) -> User:
    """Another session of a user."""
    status, answer = await server.client.post(
        "/_matrix/client/v3/login",
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user.user_id},
            "password": "wonderland",
        },
    )
    assert status == 200, answer
    return User(server, answer["user_id"], answer["access_token"], answer["device_id"])


class PushersTest(TestCase):
    async def test_set_list_and_remove(self) -> None:
        """Shows PSH-10."""
        server = await make_server(self)
        alice = await server.register()
        self.assertEqual(await pushers_of(alice), [])
        data = {"url": URL, "format": "event_id_only", "own": {"a": [1.5, None]}}
        await set_pusher(alice, data=data, profile_tag="tag")
        [found] = await pushers_of(alice)
        expected = {**pusher(data=data, profile_tag="tag"), "enabled": True}
        expected |= {"device_id": alice.device_id, "org.matrix.msc3881.enabled": True}
        expected["org.matrix.msc3881.device_id"] = alice.device_id
        self.assertEqual(found, expected)
        await set_pusher(alice, lang="de")
        [found] = await pushers_of(alice)
        self.assertEqual((found["lang"], found["data"]), ("de", {"url": URL}))
        self.assertNotIn("profile_tag", found)
        await set_pusher(alice, pushkey="other")
        self.assertEqual(len(await pushers_of(alice)), 2)
        gone = {"kind": None, "app_id": "org.example.app", "pushkey": "key"}
        await alice.ok("POST", "/pushers/set", gone)
        await alice.ok("POST", "/pushers/set", gone)
        self.assertEqual([each["pushkey"] for each in await pushers_of(alice)], ["other"])
        for body in ({}, pusher(kind="x"), {**gone, "pushkey": "a\0"}):
            self.assertEqual((await alice.call("POST", "/pushers/set", body))[0], 400)
        bob = await server.register()
        self.assertEqual(await pushers_of(bob), [])

    async def test_append(self) -> None:
        """Shows PSH-10."""
        server = await make_server(self)
        alice, bob = await server.register(), await server.register()
        await set_pusher(alice)
        await set_pusher(bob, append=True)
        self.assertEqual(len(await pushers_of(alice)), 1)
        await set_pusher(bob, pushkey="key", app_id="org.example.other")
        self.assertEqual(len(await pushers_of(alice)), 1)
        await set_pusher(bob)
        self.assertEqual(await pushers_of(alice), [])
        self.assertEqual(len(await pushers_of(bob)), 2)

    async def test_it_goes_with_its_session(self) -> None:
        """Shows PSH-10."""
        server = await make_server(self)
        alice = await server.register()
        phone = await login(server, alice)
        await set_pusher(phone)
        await set_pusher(alice, pushkey="laptop")
        # Another session switches it off; it stays the phone's.
        await set_pusher(alice, enabled=False)
        found = {each["pushkey"]: each for each in await pushers_of(alice)}
        self.assertEqual(found["key"]["device_id"], phone.device_id)
        self.assertEqual((found["key"]["enabled"], found["laptop"]["enabled"]), (False, True))
        await phone.ok("POST", "/logout")
        self.assertEqual([each["pushkey"] for each in await pushers_of(alice)], ["laptop"])

    async def test_bounds(self) -> None:
        server = await make_server(self)
        alice = await server.register()
        for number in range(100):
            await set_pusher(alice, pushkey=f"k{number}")
        status, answer = await alice.call("POST", "/pushers/set", pusher())
        self.assertEqual((status, answer["errcode"]), (403, "M_USER_LIMIT_EXCEEDED"))
        await set_pusher(alice, pushkey="k5", lang="de")
        _, guest = await server.client.post(
            "/_matrix/client/v3/register", {}, query={"kind": "guest"}
        )
        status, answer = await server.client.with_token(guest["access_token"]).post(
            "/_matrix/client/v3/pushers/set", pusher()
        )
        self.assertEqual((status, answer["errcode"]), (403, "M_GUEST_ACCESS_FORBIDDEN"))

    async def test_http_where_the_operator_allows_it(self) -> None:
        data = {"url": "http://127.0.0.1:9/other"}
        for allowed, status in ((False, 400), (True, 200)):
            server = await make_server(self, push={"allow_http": allowed})
            alice = await server.register()
            answer = await alice.call("POST", "/pushers/set", pusher(data=data))
            self.assertEqual(answer[0], status)
