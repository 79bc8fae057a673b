"""State keys and their numbers, as processes remember them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any
from unittest import mock

from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database


@on_each_database
class StateKeysTest(DatabaseTestCase):
    async def test_what_was_rolled_back_is_not_remembered(self) -> None:
        """Numbers of keys are given again to others after a transaction that failed."""
        db = await self.open()
        store = StateStore()

        def fails(txn: Transaction) -> None:
            numbers = store.intern(txn, [("m.a", ""), ("m.b", "")])
            store.lookup(txn, list(numbers))
            store.keys(txn, list(numbers.values()))
            raise KeyError

        with self.assertRaises(KeyError):
            await db.write(fails)
        mine = await db.write(store.intern, [("m.c", ""), ("m.d", "")])
        names = await db.read(store.keys, list(mine.values()))
        self.assertEqual({number: key for key, number in mine.items()}, names)
        self.assertEqual(await db.read(store.lookup, [("m.a", "")]), {})
        again = await db.write(store.intern, [("m.a", ""), ("m.d", "")])
        self.assertEqual(again["m.d", ""], mine["m.d", ""])
        self.assertNotIn(again["m.a", ""], mine.values())
        self.assertEqual(await db.read(StateStore().lookup, list(again)), again)

    async def test_many_new_keys_of_which_another_makes_one_meanwhile(self) -> None:
        db = await self.open()
        keys = [("m.room.member", f"@user{number:03}\t\\:far") for number in range(400)]
        (number,) = (await db.write(StateStore().intern, keys[100:101])).values()
        store = StateStore()
        # It was not there when it was looked for.
        answers: Any = chain([{}], repeat(mock.DEFAULT))
        with mock.patch.object(store, "_fetch", wraps=store._fetch, side_effect=answers):
            found = await db.write(store.intern, keys)
        self.assertEqual(found[keys[100]], number)
        self.assertEqual(len(set(found.values())), 400)
        self.assertEqual(await db.read(StateStore().lookup, keys), found)

    async def test_nodes_are_read_as_they_were_saved(self) -> None:
        """Whatever bytes they have, and also once the statement is prepared."""
        db = await self.open()

        def load(txn: Transaction, room_nid: int, names: Sequence[bytes]) -> Mapping[bytes, bytes]:
            return StateStore().loader(txn, room_nid)(names)

        for room_nid in range(1, 18):
            nodes = {bytes([n, 0, 92, 34]): bytes([*range(n % 7, 256), n]) for n in range(9)}
            for _ in range(2):
                await db.write(StateStore().save, room_nid, nodes)
            self.assertEqual(await db.read(load, room_nid, list(nodes)), nodes)
