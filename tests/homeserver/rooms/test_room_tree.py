"""The state trees of a room within a transaction."""

from __future__ import annotations

import random
from typing import TypeAlias

from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import StateKey
from homeserver.rooms.room_tree import RoomTree
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

State: TypeAlias = dict[StateKey, int]


@on_each_database
class DiffTest(DatabaseTestCase):
    async def test_by_a_state_that_is_near(self) -> None:
        """What differs is the same, however it is found out; by the room's whole state as well as
        by trees."""
        db = await self.open()

        def compare(txn: Transaction, seed: int) -> bool:
            chance = random.Random(seed)
            tree = RoomTree(txn, StateStore(), 1, ROOM_VERSIONS["11"])
            near = _state(chance, chance.choice([0, 1, 40, 300]))
            old = _changed(chance, near, keep=chance.choice([0.0, 0.05, 0.2, 1.0]))
            new = _changed(chance, near, keep=1.0)
            roots = tree.build(old), tree.build(new), tree.build(near)
            if chance.random() < 0.5:
                tree.save()
                # Another transaction's, which has the keys to learn.
                tree = RoomTree(txn, StateStore(), 1, ROOM_VERSIONS["11"])
            found = tree.diff_known(*roots, near)
            self.assertEqual(found, tree.diff(*roots[:2]), seed)
            expected = {
                key: (old.get(key), new.get(key))
                for key in {*old, *new}
                if old.get(key) != new.get(key)
            }
            self.assertEqual(found, expected, seed)
            return bool(found) and len(old) * 4 <= len(near)

        quick = [await db.write(compare, seed) for seed in range(60)]
        self.assertTrue({True, False} == set(quick))


def _state(chance: random.Random, size: int) -> State:
    state = {("m.room.member", f"@user{number}:far"): number for number in range(size)}
    return state | {(f"m.{number}", ""): 1000 + number for number in range(chance.randrange(5))}


def _changed(chance: random.Random, state: State, keep: float) -> State:
    """Some of a state, with a few other events, keys more and keys less."""
    found = {key: number for key, number in state.items() if chance.random() <= keep}
    for number in range(chance.choice([0, 1, 5])):
        kind = chance.choice(["gone", "other", "more", "back"])
        if kind == "more":
            found["m.more", str(chance.randrange(9))] = 5000 + number
        elif kind == "back" and state:
            key = chance.choice(list(state))
            found[key] = state[key]
        elif found:
            key = chance.choice(list(found))
            if kind == "gone":
                del found[key]
            else:
                found[key] = 6000 + number
    return found
