"""After any work, what is derived from the events agrees with them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from homeserver.core import state_tree
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.server import User, make_server

VERSIONS = ("1", "5", "10", "11", "12")
ROUNDS = 30
AT_ONCE = 20


def disagreements(txn: Transaction) -> list[str]:
    """What in the tables does not follow from the events, by room."""
    found = []
    names = {
        nid: (kind, key)
        for nid, kind, key in txn.all("SELECT state_key_nid, type, state_key FROM state_keys")
    }
    for room in txn.all(
        "SELECT room_nid, head_version, depth, extremities, state_root, last_pos, notify_total,"
        " highlight_total FROM rooms"
    ):
        found += [f"room {room[0]}: {name}" for name in _of_room(txn, room, names)]
    return found


def _of_room(txn: Transaction, room: Any, names: dict[int, tuple[str, str]]) -> list[str]:
    room_nid = room[0]
    log = txn.all(
        "SELECT event_nid, event_id, pos, depth, type, state_key, state_before, state_after,"
        " replaces_state, json, notify, thread_root FROM events WHERE room_nid = ? ORDER BY pos",
        (room_nid,),
    )
    root, totals = state_tree.EMPTY, [0, 0]
    current: dict[tuple[str, str], tuple[int, str]] = {}
    members: dict[str, tuple[str, int, int]] = {}
    changes, roots, wrong = [], {}, []
    for nid, event_id, pos, _, kind, key, before, after, replaces, text, notify, thread in log:
        if bytes(before) != root:
            wrong.append(f"state before {event_id}")
        root = bytes(after)
        if thread is None:
            totals = [totals[0] + (notify > 0), totals[1] + (notify > 1)]
        if key is None:
            continue
        if replaces != current.get((kind, key), (0, None))[1]:
            wrong.append(f"what {event_id} replaces")
        current[kind, key] = (nid, event_id)
        roots[pos] = root
        if kind == "m.room.member":
            membership = json.loads(text)["content"]["membership"]
            changes.append((pos, key, membership, members.get(key, ("leave",))[0]))
            members[key] = (membership, nid, pos)
    last = log[-1]
    expected = (len(log), last[3], [last[1]], root, last[2], *totals)
    if (*room[1:3], json.loads(room[3]), bytes(room[4]), *room[5:]) != expected:
        wrong.append("head")
    load = StateStore().loader(txn, room_nid)
    numbers = {key: nid for key, (nid, _) in current.items()}
    checks: dict[str, tuple[Any, Any]] = {
        "tree": ({names[k]: n for k, n in state_tree.items(root, load)}, numbers),
        "current_state": (
            _rows(txn, "type, state_key, event_nid", "current_state", room_nid),
            {(*key, nid) for key, nid in numbers.items()},
        ),
        "room_states": (
            {(pos, bytes(r)) for pos, r in _rows(txn, "pos, root", "room_states", room_nid)},
            set(roots.items()),
        ),
        "membership_log": (
            _rows(txn, "pos, user_id, membership, previous", "membership_log", room_nid),
            set(changes),
        ),
        "memberships": (
            _rows(txn, "user_id, membership, event_nid, pos", "memberships", room_nid),
            {(user_id, *row) for user_id, row in members.items()},
        ),
    }
    return wrong + [name for name, (stored, derived) in checks.items() if stored != derived]


def _rows(txn: Transaction, columns: str, table: str, room_nid: int) -> set[Any]:
    sql = f"SELECT {columns} FROM {table} WHERE room_nid = ?"
    return {tuple(row) for row in txn.all(sql, (room_nid,))}


class _Crowd:
    """Users who do at random what users do, whether they may or not."""

    def __init__(self, users: list[User], rooms: list[str], seed: int) -> None:
        self._users, self._rooms = users, rooms
        self._random = random.Random(seed)
        self._sent: list[tuple[str, str]] = []
        self.statuses: set[int] = set()

    async def act(self) -> None:
        choose, number = self._random.choice, self._random.randrange(10**9)
        user, other, room_id = choose(self._users), choose(self._users), choose(self._rooms)
        room = f"/rooms/{quote(room_id)}"
        target = {"user_id": other.user_id}
        text = {"msgtype": "m.text", "body": "hi", "m.mentions": {"user_ids": [other.user_id]}}
        actions: list[Callable[[], tuple[str, str, Any]]] = [
            lambda: ("PUT", f"{room}/send/m.room.message/{number}", text),
            lambda: ("PUT", f"{room}/send/m.room.message/{number}", text),
            lambda: ("POST", f"{room}/leave", {}),
            lambda: ("POST", f"/join/{quote(room_id)}", {}),
            lambda: ("POST", f"/join/{quote(room_id)}", {}),
            lambda: ("POST", f"{room}/{choose(['invite', 'kick', 'ban', 'unban'])}", target),
            lambda: ("PUT", f"{room}/state/m.room.topic", {"topic": str(number)}),
            lambda: ("PUT", f"/profile/{user.user_id}/displayname", {"displayname": str(number)}),
            lambda: self._redact(number),
        ]
        method, path, body = choose(actions)()
        status, answer = await user.call(method, path, body)
        self.statuses.add(status)
        if status == 200 and answer.get("event_id"):
            self._sent.append((room_id, answer["event_id"]))

    def _redact(self, number: int) -> tuple[str, str, Any]:
        room_id, event_id = self._random.choice(self._sent or [(self._rooms[0], "$none")])
        return "PUT", f"/rooms/{quote(room_id)}/redact/{quote(event_id)}/{number}", {}


class ProjectionsTest(TestCase):
    timeout = 120

    async def test_after_random_work(self) -> None:
        """Shows EVT-10."""
        server = await make_server(self)
        users = [await server.register() for _ in range(4)]
        rooms = [
            await users[n % 4].create_room(preset="public_chat", room_version=version)
            for n, version in enumerate(VERSIONS)
        ]
        crowd = _Crowd(users, rooms, seed=1)
        for _ in range(ROUNDS):
            await gatherResults([Deferred.fromCoroutine(crowd.act()) for _ in range(AT_ONCE)])
        self.assertIn(200, crowd.statuses)
        self.assertEqual([status for status in crowd.statuses if status >= 500], [])
        self.assertEqual(await server.homeserver.db.read(disagreements), [])
