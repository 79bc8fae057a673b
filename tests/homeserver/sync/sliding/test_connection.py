"""What is kept of connections."""

from __future__ import annotations

from unittest import TestCase as UnitTest

from homeserver.core.errors import MatrixError
from homeserver.sync.sliding.connection import EXPIRY, NOTHING, Connections, Sent, SentRoom, touch
from homeserver.sync.sliding.request import RoomConfig
from homeserver.sync.sliding.required_state import RequiredState
from storage.sliding_positions import Connection
from storage.transaction import Transaction
from tests.homeserver.sync.scene import SyncTestCase

WHO = Connection("@a:x", "D", "")


def sent(*nids: int) -> Sent:
    state = RequiredState.of([("a", ""), ("m.room.member", "$LAZY")], "@a:x")
    rooms = {
        nid: SentRoom(nid or None, RoomConfig(nid, state), nid % 2 == 0, nid % 8) for nid in nids
    }
    return Sent(rooms, frozenset({"account_data"}))


class SentTest(UnitTest):
    def test_round_trip(self) -> None:
        for one in (NOTHING, sent(0, 1, 2)):
            self.assertEqual(Sent.load(one.dump()), one)

    def test_configurations_are_written_once(self) -> None:
        self.assertEqual(sent(*range(100)).dump().count("$LAZY"), 1)


class ConnectionsTest(SyncTestCase):
    """Positions in the table: another process has other caches."""

    async def prepare(self) -> None:
        await super().prepare()
        self.one, self.other = Connections(), Connections()

    async def write(
        self,
        parent: int,
        what: Sent,
        who: Connection = WHO,
        now: int = 0,
        by: Connections | None = None,
    ) -> int:
        def run(txn: Transaction) -> int:
            return (by or self.one).write(txn, who, parent, what, now)

        return await self.server.homeserver.db.write(run)

    async def known(self, position: int, who: Connection = WHO, now: int = 0) -> Sent | None:
        def run(txn: Transaction) -> list[Sent]:
            return [c.read(txn, who, position, now)[0] for c in (self.one, self.other)]

        try:
            first, second = await self.server.homeserver.db.read(run)
        except MatrixError as error:
            self.assertEqual(error.errcode, "M_UNKNOWN_POS")
            return None
        self.assertEqual(first, second)
        return first

    async def test_two_answers_are_kept(self) -> None:
        first = await self.write(0, sent(1))
        answers = [await self.write(first, sent(1, number)) for number in (2, 3, 4)]
        self.assertEqual(await self.known(first), sent(1))
        self.assertIsNone(await self.known(answers[0]))
        self.assertEqual(await self.known(answers[1]), sent(1, 3))
        self.assertEqual(await self.known(answers[2]), sent(1, 4))
        last = await self.write(answers[1], sent(1, 3, 5))
        self.assertIsNone(await self.known(first))
        self.assertIsNone(await self.known(answers[2]))
        self.assertEqual(await self.known(answers[1]), sent(1, 3))
        self.assertEqual(await self.known(last), sent(1, 3, 5))

    async def test_the_newest_answers_are_kept_whoever_wrote_them(self) -> None:
        """Processes take numbers in blocks, so a newer position may have a lower one."""
        await self.write(0, sent(9), WHO._replace(conn_id="other"), by=self.one)
        first = await self.write(0, sent(1), now=1, by=self.other)
        second = await self.write(0, sent(2), now=2, by=self.one)
        self.assertLess(second, first)
        third = await self.write(0, sent(3), now=3, by=self.other)
        self.assertEqual(await self.known(second), sent(2))
        self.assertEqual(await self.known(third), sent(3))
        self.assertIsNone(await self.known(first))

    async def test_answer_to_a_forgotten_position(self) -> None:
        first = await self.write(0, sent(1))
        for _ in range(3):
            last = await self.write(0, sent(1))
        with self.assertRaises(MatrixError):
            await self.write(first, sent(2))
        self.assertEqual(await self.known(last), sent(1))

    async def test_whose(self) -> None:
        position = await self.write(0, sent(1))
        for other in (("@b:x", "D", ""), ("@a:x", "E", ""), ("@a:x", "D", "c")):
            self.assertIsNone(await self.known(position, Connection(*other)))

    async def test_use(self) -> None:
        position = await self.write(0, sent(1))
        self.assertIsNotNone(await self.known(position, now=EXPIRY))
        self.assertIsNone(await self.known(position, now=EXPIRY + 1))
        await self.server.homeserver.db.write(touch, position, EXPIRY)
        self.assertIsNotNone(await self.known(position, now=2 * EXPIRY))
        await self.write(0, sent(1), WHO._replace(conn_id="new"), now=2 * EXPIRY + 1)
        count = await self.server.homeserver.db.read(
            lambda txn: txn.value("SELECT COUNT(*) FROM sliding_positions")
        )
        self.assertEqual(count, 1)
