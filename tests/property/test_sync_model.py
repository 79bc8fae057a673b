"""Clients that follow `/sync` know what the server knows, whatever users do.

Users act at random through the API; clients of theirs sync now and then, lose answers, start anew,
and keep what they are told. HEARTH_TEST_LONG is a number of games to play instead of a few;
HEARTH_TEST_SEED is the first one's seed, HEARTH_TEST_STEPS how long each is.
"""

from __future__ import annotations

import os
import random
import traceback
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.rooms.view import RoomView
from storage import rooms, state
from storage.state import StateStore
from storage.transaction import Transaction
from tests.property.sync_client import ModelClient, pages, require
from tests.property.sync_truth import MEMBER, RoomLog
from tests.property.sync_world import LIMITS, World
from tests.support.server import make_server

GAMES = int(os.environ.get("HEARTH_TEST_LONG") or 8)
SEED = int(os.environ.get("HEARTH_TEST_SEED") or 1)
STEPS = int(os.environ.get("HEARTH_TEST_STEPS") or 120)
CLIENTS = 8


class Game:
    """One sequence of operations and syncs."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.sync_rate = self.rng.choice([0.15, 0.4, 0.7, 0.9])
        world.max_rooms = self.rng.choice([1, 2, 4, 4])

    async def play(self) -> None:
        await self.world.populate(CLIENTS)
        for number in range(STEPS):
            await self.world.step()
            if self.rng.random() < self.sync_rate:
                await self.sync(self.rng.choice(self.world.clients))
            if number % 40 == 39:
                await self.check_all()

    async def sync(self, client: ModelClient) -> None:
        """One sync of one client, and a look at what it then knows."""
        rng, world = self.rng, self.world
        chance = rng.random()
        if chance < 0.05:
            client.restart()
        limit, full_state = rng.choice(LIMITS), rng.random() < 0.08
        who = world.clients.index(client)
        world.done.append(
            f"client {who} ({client.user.user_id} {client.habits}) syncs from {client.token}:"
            f" limit {limit}, full_state {full_state}"
        )
        answer = await client.ask(limit, full_state=full_state)
        if 0.05 < chance < 0.15:
            world.done.append("... and the answer is lost")
            return
        client.take(answer, world.logs)
        world.done.append(f"... {answer}")
        self.check(client)

    def check(self, client: ModelClient) -> None:
        ignored = self.world.ignored_ever.get(client.user.user_id, set())
        client.check_memberships(self.world.logs, ignored)
        client.check_states(self.world.logs)
        self._check_account_data(client)
        self._check_receipts(client)
        if not client.habits.timeline and not ignored:
            for room_id, room in client.rooms.items():
                if room.view == "join":
                    self._check_unread(client, room_id)

    def _check_account_data(self, client: ModelClient) -> None:
        for (user_id, room_id, name), content in self.world.account.items():
            if user_id != client.user.user_id:
                continue
            if room_id is None:
                found = client.account
            elif room_id in client.rooms and client.rooms[room_id].view == "join":
                found = client.rooms[room_id].account
            else:
                continue
            require(found.get(name) == content, f"{name} in {room_id} of {user_id}", found, content)

    def _check_receipts(self, client: ModelClient) -> None:
        me = client.user.user_id
        for (room_id, user_id, kind, thread), event_id in self.world.receipts.items():
            room = client.rooms.get(room_id)
            if room is None or room.view != "join" or (kind != "m.read" and user_id != me):
                continue
            # One event shows one receipt of a type and user, and unthreaded ones go before.
            log, mine = self.world.logs[room_id], (kind, user_id)
            found = {item[2] for item in room.receipts if item[:2] == mine}
            whole = self.world.receipts.get((room_id, user_id, kind, None), event_id)
            require(
                event_id in found or log.by_id[whole].pos > log.by_id[event_id].pos,
                f"{kind} of {user_id} for {thread} in {room_id} for {me}",
            )

    def _check_unread(self, client: ModelClient, room_id: str) -> None:
        me, room = client.user.user_id, client.rooms[room_id]
        counts = self._unread(me, self.world.logs[room_id])
        if client.habits.by_thread:
            main = counts.pop(None, [0, 0])
            threads = {
                name: [each["notification_count"], each["highlight_count"]]
                for name, each in room.threads.items()
            }
            require(threads == counts, f"threads of {room_id} for {me}: {threads} {counts}")
        else:
            main = [sum(each[n] for each in counts.values()) for n in (0, 1)]
        found = [room.unread["notification_count"], room.unread["highlight_count"]]
        require(found == main, f"unread in {room_id} for {me}: {found} instead of {main}")

    def _unread(self, me: str, log: RoomLog) -> dict[str | None, list[int]]:
        """Notifications and highlights, by thread, as literally as possible."""
        world = self.world
        since, _ = log.last_stay(me)
        assert since is not None
        everything, read = since, dict[str | None, int]()
        for (room_id, user_id, _, thread), event_id in world.receipts.items():
            if (room_id, user_id) != (log.room_id, me):
                continue
            pos = log.by_id[event_id].pos
            if thread is None:
                everything = max(everything, pos)
            else:
                name = None if thread == "main" else thread
                read[name] = max(read.get(name, 0), pos)
        counts: dict[str | None, list[int]] = {}
        for entry in log.entries:
            loudness, name, mentioned = world.kinds.get(entry.event_id, (0, None, set()))
            if not loudness:
                continue
            if entry.sender == me:
                counts.pop(name, None)
            elif entry.pos > max(everything, read.get(name, 0)) and not entry.redacted:
                count = counts.setdefault(name, [0, 0])
                count[0] += 1
                count[1] += me in mentioned
        return counts

    # What the server keeps

    async def check_all(self) -> None:
        world = self.world
        for client in world.clients:
            client.take(await client.ask(self.rng.choice(LIMITS)), world.logs)
            self.check(client)
            ignored = world.ignored_ever.get(client.user.user_id, set())
            await client.check_history(world.logs, ignored)
        for user in world.users:
            answer = await user.ok("GET", "/joined_rooms")
            inside = {
                name for name, log in world.logs.items() if user.user_id in log.members("join")
            }
            require(set(answer["joined_rooms"]) == inside, f"/joined_rooms of {user.user_id}")
        for log in world.logs.values():
            await self._check_api(log)
            await world.server.homeserver.db.read(self._check_database, log)

    async def _check_api(self, log: RoomLog) -> None:
        for user in self.world.users:
            me = user.user_id
            since, until = log.last_stay(me)
            if log.membership(me) != "join" and (
                since is None or (log.room_id, me) in self.world.forgotten
            ):
                continue
            ignored = self.world.ignored_ever.get(me, set())
            found = [name async for name in pages(user, log.room_id, None, {}, 11)][::-1]
            wanted = [
                entry.event_id
                for entry in log.visible(me)
                if until is None or entry.pos <= until
                if entry.state_key is not None or entry.sender not in ignored
            ]
            kept = [
                name
                for name in found
                if log.by_id[name].state_key is not None or log.by_id[name].sender not in ignored
            ]
            require(kept == wanted, f"/messages of {log.room_id} for {me}", kept, wanted)
            answer = await user.ok("GET", f"/rooms/{quote(log.room_id)}/state")
            shown = {(e["type"], e["state_key"]): e["event_id"] for e in answer}
            end = (
                log.state
                if until is None
                else next(entry.after for entry in log.entries if entry.pos == until)
            )
            ids = {key: entry.event_id for key, entry in end.items()}
            require(shown == ids, f"/state of {log.room_id} for {me}")
            answer = await user.ok("GET", f"/rooms/{quote(log.room_id)}/members")
            shown = {(MEMBER, e["state_key"]): e["event_id"] for e in answer["chunk"]}
            members = {key: name for key, name in ids.items() if key[0] == MEMBER}
            require(shown == members, f"/members of {log.room_id} for {me}")

    def _check_database(self, txn: Transaction, log: RoomLog) -> None:
        states = self.world.server.homeserver.services[StateStore]
        room = rooms.get(txn, log.room_id)
        assert room is not None
        view = RoomView(txn, states, room, self.world.users[0].user_id)
        current = {key: row.event_id for key, row in state.current(txn, log.nid).items()}
        require(current == log.state_ids(), f"current_state of {log.room_id}")
        for entry in log.entries:
            root = state.root_at(txn, log.nid, entry.pos)
            assert root is not None
            wanted = {key: other.nid for key, other in entry.after.items()}
            require(view.numbers_at(root) == wanted, f"state of {log.room_id} at {entry.pos}")
        roots = txn.all(
            "SELECT pos, state_before, state_after FROM events WHERE room_nid = ? ORDER BY pos",
            (log.nid,),
        )
        for (pos, before, after), entry in zip(roots, log.entries, strict=True):
            for root, known in ((before, entry.before), (after, entry.after)):
                wanted = {key: other.nid for key, other in known.items()}
                require(view.numbers_at(bytes(root)) == wanted, f"{log.room_id} around {pos}")
        require(room.state_root == bytes(roots[-1][2]), f"the root of {log.room_id}")
        require(room.last_pos == log.entries[-1].pos, f"last_pos of {log.room_id}")
        members = txn.all(
            "SELECT user_id, membership, event_id FROM memberships WHERE room_nid = ?", (log.nid,)
        )
        wanted_members = {
            (key[1], entry.content["membership"], entry.event_id)
            for key, entry in log.state.items()
            if key[0] == MEMBER
        }
        require(set(map(tuple, members)) == wanted_members, f"memberships of {log.room_id}")


class SyncModel(TestCase):
    timeout = 24 * 3600 if "HEARTH_TEST_LONG" in os.environ else 120

    async def test_clients_know_what_the_server_knows(self) -> None:
        """Shows SYN-4, SYN-5, SYN-7, SYN-10, SYN-12."""
        failed = []
        for seed in range(SEED, SEED + GAMES):
            server = await make_server(self)
            world = World(server, random.Random(f"world {seed}"))
            try:
                await Game(world, seed).play()
            except Exception:
                history = "\n".join(world.done[-int(os.environ.get("HEARTH_TEST_TRACE") or 12) :])
                failed.append(f"seed {seed}:\n{history}\n{traceback.format_exc()}")
        if failed:
            self.fail("\n\n".join(failed))
