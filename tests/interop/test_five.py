"""Five servers in one room, with partitions and concurrent changes: all end up the same."""

from __future__ import annotations

import os
import random
from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.interop.account import Account, Refused, pause, together
from tests.interop.case import new_directory
from tests.interop.proxy import Proxy, Switch
from tests.interop.servers import INTEROP, HearthServer, Server, SynapseServer, start_all
from tests.support.network import eventually

reactor: Any = installed_reactor


class FiveServersTest(TestCase):
    skip = None if os.environ.get(INTEROP) else "run by scripts/test --interop"
    timeout = 600

    async def prepare(self) -> None:
        """Three Hearths and two Synapses behind proxies, and a user on each."""
        self.switch = Switch()
        kinds: list[type[Server]] = [HearthServer] * 3 + [SynapseServer] * 2
        self.servers = [kind(new_directory(kind.kind), proxied=True) for kind in kinds]
        for server in self.servers:
            self.addCleanup(server.kill)
            proxy = Proxy(self.switch, server.name, server.port, server.federation_port)
            self.addCleanup(_stop, proxy)
        await start_all(self.servers)
        self.users: list[Account] = await together(
            server.register("user") for server in self.servers
        )
        self.sent: dict[str, set[str]] = {}

    async def room(self, version: str, level: int = 50) -> str:
        """A room that all users are in; those that did not make it have the power `level`."""
        first, *others = self.users
        room_id = await first.create_room(version, preset="public_chat")
        for user in others:
            await user.join(room_id, first.server.name)
        levels = await first.state_of(room_id, "m.room.power_levels")
        levels["users"] |= {user.user_id: level for user in others}
        await first.set_state(room_id, "m.room.power_levels", levels)
        for user in self.users:
            await user.sees_state(room_id, "m.room.power_levels", levels)
        self.sent[room_id] = set()
        return room_id

    async def _wake(self) -> None:
        """Every server asks every other one something, which ends the back-off of those."""
        for user in self.users:
            others = [other for other in self.users if other is not user]
            await together(user.call("GET", f"/profile/{quote(other.user_id)}") for other in others)

    async def _act(self, user: Account, room_id: str, seed: int) -> None:
        """Messages, and state that the others change as well."""
        choice = random.Random(seed)
        for number in range(6):
            self.sent[room_id].add(await user.send(room_id, f"{user.user_id} {seed} {number}"))
            topic = {"topic": f"{user.user_id} {seed} {number}"}
            await user.set_state(room_id, "m.room.topic", topic)
            key = choice.choice(("a", "b", "c"))
            await user.set_state(room_id, "org.example.state", {"n": f"{seed}{number}"}, key)

    async def _all_act(self, rooms: list[str], seed: int) -> None:
        await together(
            self._act(user, room_id, seed + number)
            for room_id in rooms
            for number, user in enumerate(self.users)
        )

    async def _same(self, room_id: str) -> bool:
        """AssertionError unless all hold the same state and have all messages."""
        states = {user.server.name: await user.state(room_id) for user in self.users}
        first = states[self.users[0].server.name]
        for user in self.users:
            state = states[user.server.name]
            keys = {key for key, _ in set(first.items()) ^ set(state.items())}
            shown = {key: (first.get(key), state.get(key)) for key in sorted(keys)}
            assert not keys, f"{user.server.kind} {user.server.name} differs: {shown}"
        for user in self.users:
            history = {event["event_id"] for event in await user.history(room_id)}
            lacking = self.sent[room_id] - history
            assert not lacking, f"{user.server.kind} {user.server.name} lacks {len(lacking)}"
        return True

    async def _heal_and_compare(self, rooms: list[str]) -> None:
        self.switch.heal()
        await self._wake()
        for room_id in rooms:
            await self._compare(room_id)

    async def _compare(self, room_id: str) -> None:
        """Wait until all have the same."""
        again = 0.0

        async def same() -> bool:
            nonlocal again
            # Each server is heard from, and what forked is joined together.
            if reactor.seconds() >= again:
                for user in self.users:
                    self.sent[room_id].add(await user.send(room_id, "after"))
                again = reactor.seconds() + 10
            await pause(0.2)
            return await self._same(room_id)

        await eventually(same, within=150)

    def _has_dropped(self, requests: int) -> bool:
        return self.switch.dropped >= requests

    async def test_partitions(self) -> None:
        """In two rooms of different versions at the same time."""
        await self.prepare()
        rooms = [await self.room("10"), await self.room("12")]
        await self._all_act(rooms, 100)
        await self._heal_and_compare(rooms)
        h1, h2, h3, s1, s2 = (server.name for server in self.servers)
        partitions: list[tuple[list[str], ...]] = [
            ([h1, h2, h3], [s1, s2]),
            ([h1, s1], [h2, h3, s2]),
            ([h1], [h2, s2], [h3, s1]),
        ]
        for number, groups in enumerate(partitions, 2):
            self.switch.partition(*groups)
            dropped = self.switch.dropped
            await self._all_act(rooms, 100 * number)
            await eventually(partial(self._has_dropped, dropped + 1))
            await self._heal_and_compare(rooms)

    async def _struggle(self, user: Account, room_id: str, seed: int) -> None:
        """Power levels, join rules, bans and invitations, against each other."""
        choice = random.Random(seed)
        guests = [guest.user_id for guest in self.guests]
        for number in range(8):
            what = choice.choice(("levels", "levels", "rules", "ban", "unban", "kick", "invite"))
            guest = choice.choice(guests)
            try:
                if what == "levels":
                    levels = await user.state_of(room_id, "m.room.power_levels")
                    levels["users"][guest] = choice.choice((0, 10, 25, 50))
                    levels["events"] = {"m.room.topic": choice.choice((0, 25, 50, 100))}
                    await user.set_state(room_id, "m.room.power_levels", levels)
                elif what == "rules":
                    rule = choice.choice(("public", "invite"))
                    await user.set_state(room_id, "m.room.join_rules", {"join_rule": rule})
                else:
                    body = {"user_id": guest, "reason": f"{seed} {number}"}
                    await user.ok("POST", f"/rooms/{room_id}/{what}", body)
                topic = {"topic": f"{user.user_id} {seed} {number}"}
                await user.set_state(room_id, "m.room.topic", topic)
            except Refused:
                # Somebody else was quicker: to ban, or to take the right away.
                continue

    async def test_struggle(self) -> None:
        """In two rooms of different versions at the same time."""
        await self.prepare()
        rooms = [await self.room("10", level=100), await self.room("12", level=100)]
        first = self.users[0]
        self.guests = await together(server.register("guest") for server in self.servers)
        for room_id in rooms:
            for guest in self.guests:
                await guest.join(room_id, first.server.name)
            for user in self.users:
                for guest in self.guests:
                    await user.sees_member(room_id, guest.user_id, "join")
        h1, h2, h3, s1, s2 = (server.name for server in self.servers)
        for number, groups in enumerate((([h1, h2, h3], [s1, s2]), ([h1, s1], [h2, h3, s2])), 1):
            self.switch.partition(*groups)
            dropped = self.switch.dropped
            await together(
                self._struggle(user, room_id, 1000 * number + place)
                for room_id in rooms
                for place, user in enumerate(self.users)
            )
            await eventually(partial(self._has_dropped, dropped + 1))
            await self._heal_and_compare(rooms)

    async def test_ban_during_partition(self) -> None:
        """A ban on one side, messages and a state change of the banned one on the other."""
        await self.prepare()
        room_id = await self.room("12")
        first, second, *_, last = self.users
        names = [server.name for server in self.servers]
        self.switch.partition(names[:2], names[2:])
        await first.ban(room_id, last.user_id)
        await last.set_state(room_id, "m.room.topic", {"topic": "of the banned"})
        await last.send(room_id, "of the banned")
        await second.sees_member(room_id, last.user_id, "ban")
        self.switch.heal()
        await self._wake()
        others = self.users[:-1]
        for user in others:
            await user.send(room_id, "after")
        for user in others:
            await user.sees_member(room_id, last.user_id, "ban")

        async def same() -> bool:
            states = [await user.state(room_id) for user in others]
            assert all(state == states[0] for state in states), states
            return True

        await eventually(same, within=60)

        async def is_banned() -> bool:
            try:
                await last.send(room_id, "still here?")
            except Refused:
                return True
            return False

        await eventually(is_banned, "the ban on the banned user's server", within=60)


def _stop(proxy: Proxy) -> Deferred[None]:
    return Deferred.fromCoroutine(proxy.stop())
