"""What is answered without a transaction is what a transaction would say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from homeserver.core.filters import parse_filter
from homeserver.sync.engine import Durable, SyncEngine
from homeserver.sync.request import SyncRequest
from storage import clock
from tests.homeserver.sync.scene import SyncTestCase
from tests.support.keys import Device


class LookTest(SyncTestCase):
    async def prepare(self) -> None:
        await super().prepare()
        self.db = self.server.homeserver.db
        self.engine = self.server.homeserver.services[SyncEngine]
        self.transactions = 0

    async def look(self, request: SyncRequest, **options: Any) -> Durable:
        """Look as a process does to which nothing seems to be new."""

        async def read(*args: Any, **more: Any) -> Any:
            self.transactions += 1
            return await self.db.read(*args, **more)

        unaware: Any = SimpleNamespace(
            dialect=self.db.dialect,
            positions=SimpleNamespace(applied=0),
            query=self.db.query,
            read=read,
        )
        return await self.engine.look(unaware, request, 1000, **{"all_rooms": False, **options})

    async def compared(self, request: SyncRequest, **options: Any) -> bool:
        """Compare both ways; whether no transaction was needed."""
        self.transactions = 0
        found = await self.look(request, **options)
        expected = await self.db.read(
            self.engine.read, request, 1000, **{"all_rooms": False, **options}
        )
        self.assertEqual(found, expected)
        return self.transactions == 0

    async def request(self, **options: Any) -> SyncRequest:
        now = await self.db.read(clock.position)
        wanted = parse_filter({"room": {"state": {"lazy_load_members": True}}})
        request = SyncRequest(self.bob.user_id, self.bob.device_id, now, 0, now, wanted)
        return request._replace(**options)

    async def test_nothing_new(self) -> None:
        await self.shared_room()
        self.assertTrue(await self.compared(await self.request()))

    async def test_keys_are_counted_all_the_same(self) -> None:
        await self.shared_room()
        device = Device(self.bob)
        await device.upload()
        await device.upload(one_time_keys=device.one_time_keys("a", "b"))
        request = await self.request()
        self.assertTrue(await self.compared(request))
        found = await self.look(request)
        self.assertEqual(found.answer["device_one_time_keys_count"], {"signed_curve25519": 2})

    async def test_what_is_new_takes_a_transaction(self) -> None:
        room_id = await self.shared_room()

        async def message() -> None:
            await self.alice.send(room_id)

        async def data() -> None:
            await self.bob.ok("PUT", f"/user/{self.bob.user_id}/account_data/org.x", {"n": 1})

        async def receipt() -> None:
            event_id = await self.alice.send(room_id)
            await self.alice.ok("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})

        async def to_device() -> None:
            body = {"messages": {self.bob.user_id: {"*": {"x": 1}}}}
            await self.alice.ok("PUT", "/sendToDevice/org.x/1", body)

        async def invitation() -> None:
            await self.alice.create_room(invite=[self.bob.user_id])

        async def gone() -> None:
            await self.bob.leave(room_id)

        happenings: list[Callable[[], Awaitable[None]]] = [
            message, data, receipt, to_device, invitation, gone
        ]  # fmt: skip
        for happen in happenings:
            request = await self.request()
            await happen()
            self.assertFalse(await self.compared(request), happen.__name__)

    async def test_a_message_to_the_device_that_was_not_confirmed(self) -> None:
        body = {"messages": {self.bob.user_id: {"*": {"x": 1}}}}
        await self.alice.ok("PUT", "/sendToDevice/org.x/1", body)
        self.assertFalse(await self.compared(await self.request()))

    async def test_who_asks_for_everything_gets_it(self) -> None:
        await self.shared_room()
        request = await self.request()
        self.assertFalse(await self.compared(request, all_rooms=True))
        self.assertFalse(await self.compared(request._replace(full_state=True)))
        self.assertFalse(await self.compared(request._replace(since=None)))

    async def test_a_token_of_the_future(self) -> None:
        await self.shared_room()
        request = await self.request()
        ahead = (request.since or 0) + 1000
        await self.compared(request._replace(since=ahead, to_device_since=ahead))
