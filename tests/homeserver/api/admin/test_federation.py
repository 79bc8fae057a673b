"""Other servers, as administrators see them."""

from __future__ import annotations

from federation.sender.sender import FederationSender
from storage import destinations
from storage.destinations import DestinationRow
from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.admin import make_admin
from tests.support.federation import make_federation
from tests.support.network import eventually
from tests.support.room_case import q

PATH = f"{V1}/federation/destinations"


class DestinationsTest(AdminTestCase):
    async def test_servers_and_trying_them_again(self) -> None:
        """Shows XC-4."""
        a, b = federation = await make_federation(self, presence={"enabled": False})
        self.alice, carol = await make_admin(await a.register("alice")), await b.register("carol")
        room_id = await self.alice.create_room(invite=[carol.user_id])
        await carol.join(room_id)
        one = f"{PATH}/{q(b.name)}"
        shown = await self.alice.ok("GET", one)
        self.assertEqual(
            (shown["destination"], shown["retry_interval"], shown["failure_ts"]),
            (b.name, 0, None),
        )
        self.assertEqual(await self.alice.ok("GET", PATH), {"destinations": [shown], "total": 1})
        rooms = await self.alice.ok("GET", f"{one}/rooms")
        self.assertEqual((rooms["total"], rooms["rooms"][0]["room_id"]), (1, room_id))
        await self.refused("M_INVALID_PARAM", "POST", f"{one}/reset_connection", {})
        federation.cut(a, b)
        await self.alice.send(room_id, "not yet")

        async def is_failing() -> bool:
            return (await self.alice.ok("GET", one))["failure_ts"] is not None

        await eventually(is_failing)
        # As if it had been away for long: the next attempt is hours off.
        sender = a.homeserver.services[FederationSender]
        destination = sender._destinations[b.name]
        destination.retry_at += 6 * 3600 * 1000
        await eventually(lambda: not destination.running)
        federation.heal()
        await self.alice.ok("POST", f"{one}/reset_connection", {})

        async def is_reached() -> bool:
            return (await self.alice.ok("GET", one))["failure_ts"] is None

        await eventually(is_reached)
        seen = await carol.ok("GET", f"/rooms/{q(room_id)}/messages?dir=b")
        self.assertIn("not yet", str(seen))

    async def test_pages_and_orders(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        behind = [
            DestinationRow(f"s{number}.example", 1, number, number or None, 100, 40)
            for number in range(3)
        ]
        await self.server.homeserver.db.write(destinations.put, behind)
        answer = await self.alice.ok("GET", f"{PATH}?limit=2")
        self.assertEqual(
            answer["destinations"][1],
            {
                "destination": "s1.example",
                "retry_last_ts": 60,
                "retry_interval": 40,
                "failure_ts": 1,
                "last_successful_stream_ordering": 1,
            },
        )
        self.assertEqual((answer["total"], answer["next_token"]), (3, "2"))
        answer = await self.alice.ok("GET", f"{PATH}?limit=2&from=2")
        self.assertNotIn("next_token", answer)
        self.assertEqual([each["retry_last_ts"] for each in answer["destinations"]], [60])
        for order in (
            "destination",
            "retry_last_ts",
            "retry_interval",
            "failure_ts",
            "last_successful_stream_ordering",
        ):
            answer = await self.alice.ok("GET", f"{PATH}?order_by={order}&dir=b")
            self.assertEqual(answer["destinations"][-1]["destination"][:1], "s")
            self.assertEqual(answer["total"], 3)
        answer = await self.alice.ok("GET", f"{PATH}?order_by=failure_ts&dir=b&limit=1")
        self.assertEqual(answer["destinations"][0]["destination"], "s2.example")
        self.assertEqual((await self.alice.ok("GET", f"{PATH}?destination=S1"))["total"], 1)
        path = f"{PATH}/s1.example"
        answer = await self.alice.ok("GET", f"{path}/rooms")
        self.assertEqual(answer, {"rooms": [], "total": 0})
        self.assertEqual(await self.alice.ok("POST", f"{path}/reset_connection", {}), {})
        self.assertEqual((await self.alice.ok("GET", path))["retry_last_ts"], 0)

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        for bad in ("from=-1", "limit=x", "dir=x", "order_by=x"):
            told = await self.refused("M_INVALID_PARAM", "GET", f"{PATH}?{bad}")
            self.assertIn(bad.partition("=")[0], told)
        for name in ("other.example", "hearth.test"):
            await self.unknown("GET", f"{PATH}/{name}")
            await self.unknown("GET", f"{PATH}/{name}/rooms")
            await self.unknown("POST", f"{PATH}/{name}/reset_connection", {})
        await self.refused("M_INVALID_PARAM", "GET", f"{PATH}/no%20name")
