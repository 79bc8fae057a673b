"""Rooms that several homeservers share, from the clients' side."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from storage.transaction import Transaction
from tests.support.federation import Federation, eventually, make_federation
from tests.support.room_state import state_of
from tests.support.server import TestServer, User


def bodies(answer: Any, room_id: str) -> list[str]:
    """What was said in a room, by an answer to `/sync`."""
    room = answer["rooms"]["join"].get(room_id, {})
    events = room.get("timeline", {}).get("events", [])
    return [event["content"].get("body") for event in events if "body" in event["content"]]


class SharedRoomTest(TestCase):
    timeout = 60

    async def meet(self, **room: Any) -> tuple[Federation, User, User, str]:
        """Two servers, a user on each, in one room of the first."""
        servers = await make_federation(self, 2)
        alice = await servers[0].register("alice")
        bob = await servers[1].register("bob")
        room_id = await alice.create_room(**{"preset": "public_chat", **room})
        via = servers[0].homeserver.config.server_name
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": via})
        return servers, alice, bob, room_id

    async def same_state(self, servers: Federation, room_id: str) -> None:
        async def same() -> bool:
            states = [await state_of(server, room_id) for server in servers]
            return all(found == states[0] for found in states)

        await eventually(same)

    async def test_talking(self) -> None:
        """In every room version."""
        servers, alice, bob, room_id = await self.meet()
        versions = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]
        room_ids = [room_id]
        via = servers[0].homeserver.config.server_name
        for version in versions:
            made = await alice.create_room(preset="public_chat", room_version=version)
            await bob.ok("POST", f"/join/{made}", {}, query={"via": via})
            room_ids.append(made)
        users = [alice, bob]
        since = [(await user.sync())["next_batch"] for user in users]
        for shared in room_ids:
            await alice.send(shared, "from alice")
            await bob.send(shared, "from bob")
        heard: list[dict[str, list[str]]] = [{}, {}]

        async def all_heard() -> bool:
            for number, user in enumerate(users):
                answer = await user.sync(since[number], timeout=100)
                since[number] = answer["next_batch"]
                for shared in answer.get("rooms", {}).get("join", {}):
                    heard[number].setdefault(shared, []).extend(bodies(answer, shared))
            return all(
                sorted(found.get(shared, [])) == ["from alice", "from bob"]
                for found in heard
                for shared in room_ids
            )

        await eventually(all_heard)
        for shared in room_ids:
            await self.same_state(servers, shared)


async def shown(server: TestServer, room_id: str) -> list[str]:
    """IDs of the events of a room's timeline."""

    def read(txn: Transaction) -> list[str]:
        rows = txn.all(
            "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid"
            " WHERE r.room_id = ? AND e.pos IS NOT NULL ORDER BY e.pos",
            (room_id,),
        )
        return [row[0] for row in rows]

    return await server.homeserver.db.read(read)


class PartitionTest(TestCase):
    timeout = 120

    async def test_partitions_heal(self) -> None:
        """Both sides change the same things; afterwards all have one state and all messages."""
        servers = await make_federation(self, 3)
        a, b, c = servers
        alice, bob = await a.register("alice"), await b.register("bob")
        carol = await c.register("carol")
        power = {"users": {user.user_id: 100 for user in (alice, bob, carol)}}
        room_id = await alice.create_room(
            preset="public_chat", room_version="11", power_level_content_override=power
        )
        for user in (bob, carol):
            await user.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        await eventually(lambda: self.know(servers, room_id, 3))
        said = []
        for number in range(3):
            servers.partition([a], [b, c])
            for user in (alice, bob, carol):
                said.append(await user.send(room_id, f"{number} apart"))
                await user.set_state(room_id, "m.room.topic", {"topic": f"{number} {user.user_id}"})
                await user.set_state(room_id, "m.room.name", {"name": f"{number} {user.user_id}"})
            dora = f"@dora{number}:{a.name}"
            body = {"user_id": dora}
            await alice.ok("POST", f"/rooms/{room_id}/ban", body)
            await carol.set_state(
                room_id, "m.room.power_levels", {**power, "events": {"x": number + 1}}
            )
            servers.heal()
            users = (alice, bob, carol)
            said += [await user.send(room_id, f"{number} together") for user in users]
        await eventually(lambda: self.agree(servers, room_id, set(said)), within=60)

    async def know(self, servers: Federation, room_id: str, members: int) -> bool:
        states = [await state_of(server, room_id) for server in servers]
        return all(sum(key[0] == "m.room.member" for key in state) == members for state in states)

    async def agree(self, servers: Federation, room_id: str, said: set[str]) -> bool:
        states = [await state_of(server, room_id) for server in servers]
        have = [said <= set(await shown(server, room_id)) for server in servers]
        return all(have) and all(state == states[0] for state in states)
