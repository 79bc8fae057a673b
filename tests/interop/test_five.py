"""Five servers in one room, with partitions and concurrent changes: all end up the same."""

from __future__ import annotations

import os
import random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.interop.account import Account, Refused, pause
from tests.interop.case import new_directory
from tests.interop.proxy import Proxy, Switch
from tests.interop.servers import INTEROP, HearthServer, Server, SynapseServer
from tests.support.network import eventually


class FiveServersTest(TestCase):
    skip = None if os.environ.get(INTEROP) else "run by scripts/test --interop"
    timeout = 600

    async def prepare(self, version: str) -> str:
        """Three Hearths and two Synapses behind proxies, a user on each, all in one room."""
        self.switch = Switch()
        kinds: list[type[Server]] = [HearthServer] * 3 + [SynapseServer] * 2
        self.servers = [kind(new_directory(kind.kind), proxied=True) for kind in kinds]
        for server in self.servers:
            self.addCleanup(server.kill)
            proxy = Proxy(self.switch, server.name, server.port, server.federation_port)
            self.addCleanup(_stop, proxy)
        for server in self.servers:
            await server.start()
        self.users = [await server.register("user") for server in self.servers]
        first, *others = self.users
        room_id = await first.create_room(version, preset="public_chat")
        for user in others:
            await user.join(room_id, first.server.name)
        levels = await first.state_of(room_id, "m.room.power_levels")
        levels["users"] |= {user.user_id: 50 for user in others}
        await first.set_state(room_id, "m.room.power_levels", levels)
        for user in self.users:
            await user.sees_state(room_id, "m.room.power_levels", levels)
        self.sent = set[str]()
        return room_id

    async def _act(self, user: Account, room_id: str, seed: int) -> None:
        """Messages, and state that the others change as well."""
        choice = random.Random(seed)
        for number in range(6):
            self.sent.add(await user.send(room_id, f"{user.user_id} {seed} {number}"))
            topic = {"topic": f"{user.user_id} {seed} {number}"}
            await user.set_state(room_id, "m.room.topic", topic)
            key = choice.choice(("a", "b", "c"))
            await user.set_state(room_id, "org.example.state", {"n": f"{seed}{number}"}, key)

    async def _all_act(self, room_id: str, seed: int, users: list[Account] | None = None) -> None:
        acting: list[Any] = [
            Deferred.fromCoroutine(self._act(user, room_id, seed + number))
            for number, user in enumerate(users or self.users)
        ]
        await gatherResults(acting, consumeErrors=True)

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
            lacking = self.sent - history
            assert not lacking, f"{user.server.kind} {user.server.name} lacks {len(lacking)}"
        return True

    async def _heal_and_compare(self, room_id: str) -> None:
        self.switch.heal()
        # Each server is heard from, and what forked is joined together.
        rounds = 0

        async def same() -> bool:
            nonlocal rounds
            rounds += 1
            if rounds % 40 == 1:
                for user in self.users:
                    self.sent.add(await user.send(room_id, f"after {rounds}"))
            return await self._same(room_id)

        await eventually(same, within=150)

    async def _play(self, version: str) -> None:
        room_id = await self.prepare(version)
        await self._all_act(room_id, 100)
        await self._heal_and_compare(room_id)
        h1, h2, h3, s1, s2 = (server.name for server in self.servers)
        partitions: list[tuple[list[str], ...]] = [
            ([h1, h2, h3], [s1, s2]),
            ([h1, s1], [h2, h3, s2]),
            ([h1], [h2, s2], [h3, s1]),
        ]
        for number, groups in enumerate(partitions, 2):
            self.switch.partition(*groups)
            dropped = self.switch.dropped
            await self._all_act(room_id, 100 * number)
            await pause(1)
            self.assertGreater(self.switch.dropped, dropped)
            await self._heal_and_compare(room_id)

    async def test_partitions_v10(self) -> None:
        await self._play("10")

    async def test_partitions_v12(self) -> None:
        await self._play("12")

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

    async def _play_struggle(self, version: str) -> None:
        room_id = await self.prepare(version)
        first = self.users[0]
        levels = await first.state_of(room_id, "m.room.power_levels")
        levels["users"] |= {user.user_id: 100 for user in self.users[1:]}
        await first.set_state(room_id, "m.room.power_levels", levels)
        self.guests = [await server.register("guest") for server in self.servers]
        for guest in self.guests:
            await guest.join(room_id, first.server.name)
        for user in self.users:
            await user.sees_state(room_id, "m.room.power_levels", levels)
            for guest in self.guests:
                await user.sees_member(room_id, guest.user_id, "join")
        h1, h2, h3, s1, s2 = (server.name for server in self.servers)
        for number, groups in enumerate((([h1, h2, h3], [s1, s2]), ([h1, s1], [h2, h3, s2])), 1):
            self.switch.partition(*groups)
            acting: list[Any] = [
                Deferred.fromCoroutine(self._struggle(user, room_id, 1000 * number + place))
                for place, user in enumerate(self.users)
            ]
            await gatherResults(acting, consumeErrors=True)
            await pause(1)
            await self._heal_and_compare(room_id)

    async def test_struggle_v10(self) -> None:
        await self._play_struggle("10")

    async def test_struggle_v12(self) -> None:
        await self._play_struggle("12")

    async def test_ban_during_partition(self) -> None:
        """A ban on one side, messages and a state change of the banned one on the other."""
        room_id = await self.prepare("12")
        first, second, *_, last = self.users
        names = [server.name for server in self.servers]
        self.switch.partition(names[:2], names[2:])
        await first.ban(room_id, last.user_id)
        await last.set_state(room_id, "m.room.topic", {"topic": "of the banned"})
        await last.send(room_id, "of the banned")
        await second.sees_member(room_id, last.user_id, "ban")
        self.switch.heal()
        others = self.users[:-1]
        for user in others:
            self.sent.add(await user.send(room_id, "after"))
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
