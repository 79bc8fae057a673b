"""The servers that tests of federation are made with: they reach each other, unless cut."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from federation.client.errors import RemoteError
from federation.client.requests import FederationClient
from tests.support.federation import FederatedServer, eventually, make_federation


async def version_of(asking: FederatedServer, asked: FederatedServer) -> Any:
    client = asking.homeserver.services[FederationClient]
    return await client.get_json(asked.name, "/_matrix/federation/v1/version", signed=False)


class FederationTest(TestCase):
    async def test_cut_and_heal(self) -> None:
        a, b, c = federation = await make_federation(self, 3)
        self.assertIn("server", await version_of(a, b))
        federation.cut(a, b)
        with self.assertRaises(RemoteError):
            await version_of(a, b)
        self.assertIn("server", await version_of(b, a))
        self.assertIn("server", await version_of(a, c))
        federation.heal(a, b)
        self.assertIn("server", await version_of(a, b))
        federation.partition([a, b], [c])
        for asking, asked in ((a, c), (b, c), (c, a), (c, b)):
            with self.assertRaises(RemoteError):
                await version_of(asking, asked)
        self.assertIn("server", await version_of(b, a))
        federation.heal()
        self.assertIn("server", await version_of(c, a))

    async def test_restart(self) -> None:
        a, b = await make_federation(self)
        self.assertIn("server", await version_of(a, b))
        alice = await b.register("alice")
        await b.stop()
        with self.assertRaises(RemoteError):
            await version_of(a, b)
        await b.start()

        async def answers() -> bool:
            try:
                return "server" in await version_of(a, b)
            except RemoteError:
                return False

        await eventually(answers)
        self.assertEqual((await alice.ok("GET", "/account/whoami"))["user_id"], alice.user_id)
        await b.restart()
        self.assertEqual((await alice.ok("GET", "/account/whoami"))["user_id"], alice.user_id)
