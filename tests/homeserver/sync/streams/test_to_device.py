"""Messages that wait for a device, and how syncs take them, on both databases."""

from __future__ import annotations

from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from homeserver.core.ids import UserID
from homeserver.encryption.to_device import ToDevice
from homeserver.sync.streams import to_device as stream
from storage import clock, to_device
from storage.devices import DeviceRow, delete_devices, insert_device
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, SERVER_NAME

Contents: TypeAlias = dict[str, dict[str, dict[str, Any]]]


@on_each_database
class ToDeviceStreamTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.service = ToDevice(self.db, self.clock, SERVER_NAME)
        self.sent = 0
        for user_id, device_id in ((BOB, "ONE"), (BOB, "TWO"), (CAROL, "ONE")):
            await self.add_device(user_id, device_id)

    async def add_device(self, user_id: str, device_id: str) -> None:
        row = DeviceRow(user_id, device_id, None, 0, None, None, None)
        await self.db.write(insert_device, row)

    async def send(
        self,
        user_id: str = BOB,
        device_id: str = "ONE",
        *,
        n: int = 1,
        sender: UserID = ALICE,
        service: ToDevice | None = None,
    ) -> None:
        """Send messages; each has its number."""
        for _ in range(n):
            self.sent += 1
            contents: Contents = {user_id: {device_id: {"n": self.sent}}}
            await (service or self.service).send(sender, "A", "m.test", f"t{self.sent}", contents)

    async def messages(
        self, since: int | None = None, device_id: str = "ONE", user_id: str = BOB, **more: Any
    ) -> tuple[list[int], int | None, int]:
        """Numbers of the messages, what they reach, and the position of the reading."""

        def read(txn: Transaction) -> tuple[list[int], int | None, int]:
            now = clock.position(txn)
            found, reached = stream.messages(txn, user_id, device_id, since, now, **more)
            return [each["content"]["n"] for each in found], reached, now

        return await self.db.read(read)

    async def test_kept_until_acknowledged(self) -> None:
        """Shows SYN-21, SYN-30."""
        await self.send(n=2)
        first, reached, token = await self.messages()
        self.assertEqual((first, reached), ([1, 2], None))
        await self.send()
        # A sync in parallel with the same token, and the same once more.
        self.assertEqual((await self.messages())[0], [1, 2, 3])
        self.assertEqual((await self.messages(token))[0], [3])
        self.assertTrue(await self.db.read(stream.has_acknowledged, BOB, "ONE", token))
        await self.db.write(stream.acknowledge, BOB, "ONE", token)
        self.assertFalse(await self.db.read(stream.has_acknowledged, BOB, "ONE", token))
        # Only what the token reached is gone, also for a sync that begins anew.
        self.assertEqual((await self.messages(token))[0], [3])
        self.assertEqual((await self.messages())[0], [3])

    async def test_nothing_after_the_position_of_the_reading(self) -> None:
        """A message sent after `now` waits for the next sync."""
        await self.send()
        _, _, now = await self.messages()
        await self.send()

        def read(txn: Transaction) -> Any:
            return stream.messages(txn, BOB, "ONE", None, now)

        found, _ = await self.db.read(read)
        self.assertEqual([each["content"]["n"] for each in found], [1])

    async def test_pages_in_order(self) -> None:
        """At most `limit` in an answer; the rest from where they end. Shows SYN-21."""
        await self.send(n=5)
        got: list[int] = []
        since = None
        for expected in ([1, 2], [3, 4]):
            found, reached, now = await self.messages(since, limit=2)
            self.assertEqual(found, expected)
            assert reached is not None
            self.assertLess(reached, now)
            got += found
            since = reached
        self.assertEqual((await self.messages(since, limit=2))[:2], ([5], None))

    async def test_exactly_a_page_is_complete(self) -> None:
        """Nothing holds the token back when nothing is left."""
        await self.send(n=2)
        self.assertEqual((await self.messages(limit=2))[:2], ([1, 2], None))

    async def test_hundred_by_default(self) -> None:
        """Shows SYN-21."""
        await self.send(n=101)
        found, reached, _ = await self.messages()
        self.assertEqual(found, list(range(1, 101)))
        self.assertEqual((await self.messages(reached))[0], [101])

    async def test_form(self) -> None:
        """Messages have sender, type and content, and nothing else."""
        content = {"key": ["ü", {"x": 1.5, "y": None}], "a": True}
        await self.service.send(ALICE, "A", "m.test", "t", {BOB: {"ONE": content}})

        def read(txn: Transaction) -> Any:
            return stream.messages(txn, BOB, "ONE", None, clock.position(txn))[0]

        self.assertEqual(
            await self.db.read(read), [{"sender": ALICE, "type": "m.test", "content": content}]
        )

    async def test_devices_have_queues_of_their_own(self) -> None:
        """What one device acknowledges still waits for the others."""
        await self.send(device_id="*")
        _, _, token = await self.messages()
        await self.db.write(stream.acknowledge, BOB, "ONE", token)
        self.assertEqual((await self.messages())[0], [])
        self.assertEqual((await self.messages(device_id="TWO"))[0], [1])
        self.assertEqual((await self.messages(user_id=CAROL))[0], [])

    async def test_full_queue_loses_the_oldest(self) -> None:
        """Shows E2E-14."""
        small = ToDevice(self.db, self.clock, SERVER_NAME, max_waiting=3)
        await self.send(n=4)
        await self.send(device_id="TWO", n=1)
        self.assertEqual((await self.messages())[0], [1, 2, 3, 4])
        # Also when it is fuller than is allowed by now.
        await self.send(service=small)
        self.assertEqual((await self.messages())[0], [3, 4, 6])
        await self.send(service=small)
        self.assertEqual((await self.messages())[0], [4, 6, 7])
        self.assertEqual((await self.messages(device_id="TWO"))[0], [5])

    async def test_acknowledged_messages_make_room(self) -> None:
        """Only waiting messages count. Shows E2E-14."""
        small = ToDevice(self.db, self.clock, SERVER_NAME, max_waiting=3)
        await self.send(n=3, service=small)
        _, reached, _ = await self.messages(limit=2)
        assert reached is not None
        await self.db.write(stream.acknowledge, BOB, "ONE", reached)
        await self.send(n=2, service=small)
        self.assertEqual((await self.messages())[0], [3, 4, 5])
        _, _, now = await self.messages()
        await self.db.write(stream.acknowledge, BOB, "ONE", now)
        await self.send(n=4, service=small)
        self.assertEqual((await self.messages())[0], [7, 8, 9])

    async def test_gone_with_the_device(self) -> None:
        """A later device of the same ID gets nothing of it. Shows E2E-14."""
        await self.send(device_id="*")

        def delete(txn: Transaction) -> None:
            delete_devices(txn, BOB, ["ONE"])
            to_device.delete_device(txn, BOB, "ONE")

        await self.db.write(delete)
        await self.send()
        await self.add_device(BOB, "ONE")
        self.assertEqual((await self.messages())[0], [])
        self.assertEqual((await self.messages(device_id="TWO"))[0], [1])
        await self.send()
        self.assertEqual((await self.messages())[0], [3])

    async def test_sent_while_the_device_goes(self) -> None:
        """Whichever comes first, nothing is left for a device that is gone. Shows E2E-14."""

        def delete(txn: Transaction) -> None:
            delete_devices(txn, BOB, ["ONE"])
            to_device.delete_device(txn, BOB, "ONE")

        def left(txn: Transaction) -> Any:
            sql = "SELECT COUNT(*) FROM to_device_messages WHERE device_id = 'ONE'"
            return txn.value(sql)

        for _ in range(20):
            sends = [Deferred.fromCoroutine(self.send(device_id="*")) for _ in range(3)]
            sends.append(Deferred.fromCoroutine(self.db.write(delete)))
            await gatherResults(sends)
            self.assertEqual(await self.db.read(left), 0)
            await self.add_device(BOB, "ONE")

    async def test_old_transactions_are_forgotten(self) -> None:
        """What is kept of transactions is bounded; a fresh one is still recognised."""
        contents: Contents = {BOB: {"ONE": {"n": 1}}}
        await self.service.send(ALICE, "A", "m.test", "t1", contents)
        self.clock.advance(23 * 3600)
        await self.service.send(ALICE, "A", "m.test", "t2", contents)
        await self.service.send(ALICE, "A", "m.test", "t1", contents)
        self.assertEqual((await self.messages())[0], [1, 1])
        self.clock.advance(2 * 3600)
        await self.service.send(ALICE, "A", "m.test", "t3", contents)

        def count(txn: Transaction) -> Any:
            return txn.value("SELECT COUNT(*) FROM to_device_transactions")

        self.assertEqual(await self.db.read(count), 2)
        await self.service.send(ALICE, "A", "m.test", "t2", contents)
        self.assertEqual((await self.messages())[0], [1, 1, 1])

    async def test_many_recipients(self) -> None:
        """One transaction reaches many devices of many users, each with its own content."""
        users = [UserID(f"@user{number}:{SERVER_NAME}") for number in range(40)]
        for user_id in users:
            await self.add_device(user_id, "ONE")
            await self.add_device(user_id, "TWO")
        contents: Contents = {
            user_id: {"*": {"n": number}, "TWO": {"n": -number}}
            for number, user_id in enumerate(users, 1)
        }
        await self.service.send(ALICE, "A", "m.test", "t", contents)
        for number, user_id in enumerate(users, 1):
            self.assertEqual((await self.messages(user_id=user_id))[0], [number])
            other = await self.messages(user_id=user_id, device_id="TWO")
            self.assertEqual(other[0], [-number])
