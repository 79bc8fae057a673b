"""Joining with partial state, and getting the rest."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from urllib.parse import quote

from homeserver.core.event import Event
from homeserver.rooms.completion import GIVE_UP_MS, Completion, Incomplete
from storage import partial_rooms, room_servers, rooms
from storage.jobs import Job
from storage.transaction import Transaction
from tests.homeserver.rooms.remote_case import RemoteCase, always
from tests.support.federation import add_server, eventually
from tests.support.peer import Peer, Received, Reply
from tests.support.peer_room import PeerRoom


class PartialStateTest(RemoteCase):
    async def big_room(self, version: str = "10", members: int = 20) -> PeerRoom:
        """A room of the peer, who leaves out members when somebody joins it."""
        await self.start()
        room = self.peer.create_room(version)
        for number in range(members):
            user = self.peer.user(f"user{number}")
            room.grow("m.room.member", {"membership": "join"}, user, user)
        self.peer.on["send_join"] = partial(self.partial_answer, self.peer)
        return room

    def partial_answer(self, peer: Peer, request: Received) -> Any:
        answer: Any = peer.answer_send_join(request)
        if request.query.get("omit_members") == ["true"]:
            room = peer.rooms[request.parts[0]]
            named = {pdu["sender"] for pdu in answer["state"] if pdu["type"] != "m.room.member"}
            answer["state"] = [
                pdu
                for pdu in answer["state"]
                if pdu["type"] != "m.room.member" or pdu["state_key"] in named
            ]
            chain = room.auth_chain([room.event_of(pdu).event_id for pdu in answer["state"]])
            answer["auth_chain"] = [event.pdu for event in chain]
            answer["members_omitted"] = True
        return answer

    async def is_partial(self, room: PeerRoom) -> bool:
        def read(txn: Transaction) -> bool:
            room_nid = rooms.nid(txn, room.room_id)
            return room_nid is not None and partial_rooms.get(txn, room_nid) is not None

        return await self.hearth.homeserver.db.read(read)

    async def is_complete(self, room: PeerRoom) -> bool:
        return not await self.is_partial(room)

    @property
    def completion(self) -> Completion:
        return self.hearth.homeserver.services[Completion]

    async def joined_members(self, room: PeerRoom) -> set[str]:
        path = f"/rooms/{quote(room.room_id)}/joined_members"
        return set((await self.alice.ok("GET", path))["joined"])

    async def test_the_rest_comes_behind(self) -> None:
        """Shows FJ-6."""
        await self.rest_comes_behind(20)

    async def test_a_large_rest_comes_behind(self) -> None:
        """So many more than those that are known that they are not compared with these."""
        await self.rest_comes_behind(90)

    async def rest_comes_behind(self, members: int) -> None:
        room = await self.big_room(members=members)
        self.peer.on["state_ids"] = always(Reply({}, 500))
        await self.joined(room)
        # Usable at once: it can be read and written, with the members that are known.
        self.assertTrue(await self.is_partial(room))
        known = await self.joined_members(room)
        self.assertEqual(known, {self.alice.user_id, self.peer.user()})
        synced = await self.alice.sync()
        sent = await self.alice.send(room.room_id)
        await eventually(partial(room.events.__contains__, sent))
        # A member who is not known writes and is believed; somebody new joins.
        hello = room.message(self.peer.user("user3"))
        newcomer = self.peer.user("new")
        join = room.grow("m.room.member", {"membership": "join"}, newcomer, newcomer)
        await self.peer.sent(self.hearth.name, hello, join)
        await eventually(partial(self.has, hello))
        await eventually(partial(self.has, join))

        del self.peer.on["state_ids"]
        await self.completion.complete(room.room_id)
        self.assertFalse(await self.is_partial(room))
        self.assertEqual(await self.state(room), set(room.state.values()))
        self.assertEqual(await self.joined_members(room), set(room.members()))
        shown = (await self.alice.sync(synced["next_batch"]))["rooms"]["join"][room.room_id]
        events = shown["state"]["events"] + shown["timeline"]["events"]
        told = {e["state_key"] for e in events if e["type"] == "m.room.member"}
        self.assertLessEqual(
            {self.peer.user(f"user{n}") for n in range(members)} | {newcomer}, told
        )
        # And the room goes on.
        message = room.message(self.peer.user("user5"))
        await self.peer.sent(self.hearth.name, message)
        await eventually(partial(self.has, message))
        sent = await self.alice.send(room.room_id)
        await eventually(partial(room.events.__contains__, sent))

    async def has(self, event: Event) -> bool:
        path = f"/rooms/{quote(event.room_id)}/event/{quote(event.event_id)}"
        return (await self.alice.call("GET", path)).status == 200

    async def test_every_version_is_complete_soon(self) -> None:
        """Shows FJ-6: small rooms are complete when the join is answered, or right after it."""
        await self.start()
        for version in ("1", "2", "6", "9", "11", "12"):
            room = self.peer.create_room(version)
            for number in range(5):
                user = self.peer.user(f"user{number}")
                room.grow("m.room.member", {"membership": "join"}, user, user)
            self.peer.on["send_join"] = partial(self.partial_answer, self.peer)
            await self.joined(room)
            await eventually(partial(self.is_complete, room))
            self.assertEqual(await self.state(room), set(room.state.values()))

    async def test_servers(self) -> None:
        """Who is told of events meanwhile, and who when all members are known."""
        room = await self.big_room()
        other = await self.another_peer()
        carol = other.user("carol")
        of_other = PeerRoom(other.name, other.key, "10", room.room_id)
        of_other.events, of_other.states, of_other.heads = room.events, room.states, room.heads
        room.add(of_other.make("m.room.member", {"membership": "join"}, carol, carol))
        self.peer.on["state_ids"] = always(Reply({}, 500))
        await self.joined(room)
        self.assertEqual(await self.servers(room), {self.peer.name: 1, other.name: 1})
        del self.peer.on["state_ids"]
        await self.completion.complete(room.room_id)
        self.assertEqual(await self.servers(room), {self.peer.name: 21, other.name: 1})

    async def servers(self, room: PeerRoom) -> dict[str, int]:
        def read(txn: Transaction) -> dict[str, int]:
            room_nid = rooms.nid(txn, room.room_id) or 0
            row = rooms.get(txn, room.room_id)
            assert row is not None
            self.assertEqual(row.remote_servers, len(room_servers.of_room(txn, room_nid)))
            return dict(
                txn.all(
                    "SELECT server_name, joined FROM room_servers WHERE room_nid = ?", (room_nid,)
                )
            )

        return await self.hearth.homeserver.db.read(read)

    async def test_another_server_helps(self) -> None:
        """Shows FJ-6: whoever is in the room may tell of the rest."""
        room = await self.big_room()
        other = await self.another_peer()
        carol = other.user("carol")
        join = room.make(
            "m.room.member", {"membership": "join"}, carol, carol, key=other.key, signer=other.name
        )
        room.add(join)
        other.rooms[room.room_id] = room
        self.peer.on["state_ids"] = always({"pdu_ids": [], "auth_chain_ids": []})
        await self.joined(room)
        await self.completion.complete(room.room_id)
        self.assertEqual(await self.state(room), set(room.state.values()))
        self.assertTrue(other.received("state_ids"))

    async def test_lies_about_the_state(self) -> None:
        """A state that cannot be is not taken."""
        room = await self.big_room(members=3)
        elsewhere = self.peer.create_room("10", "bob")

        def without(event_type: str) -> Any:
            ids = [i for key, i in room.state.items() if key[0] != event_type]
            return {"pdu_ids": ids, "auth_chain_ids": []}

        lies: list[Any] = [
            without("m.room.create"),
            without("m.room.power_levels"),
            {"pdu_ids": list(elsewhere.state.values()), "auth_chain_ids": []},
            {"pdu_ids": 5},
        ]
        for answer in lies:
            self.peer.on["state_ids"] = always(answer)
            if not await self.is_partial(room):
                await self.joined(room)
            with self.assertRaises(Incomplete):
                await self.completion.complete(room.room_id)
            self.assertTrue(await self.is_partial(room))
        self.peer.on = {}
        await self.completion.complete(room.room_id)
        self.assertEqual(await self.state(room), set(room.state.values()))

    async def test_whoever_is_banned_counts_no_more(self) -> None:
        """What the whole state forbids has no effect once that is known."""
        room = await self.big_room(members=3)
        mallory, evil = self.peer.user(), self.peer.user("user1")
        power = room.state_event("m.room.power_levels")
        assert power is not None
        levels = {**power.content, "state_default": 0}
        room.grow("m.room.power_levels", levels, mallory, "")
        before = room.state_event("m.room.member", evil)
        assert before is not None
        room.grow("m.room.member", {"membership": "ban"}, mallory, evil)
        self.peer.on["state_ids"] = always(Reply({}, 500))
        await self.joined(room)
        auth = [room.state[k] for k in room.state if k[0] in ("m.room.create", power.type)]
        topic = room.make("m.room.topic", {"topic": "evil"}, evil, "", auth=[*auth, before])
        await self.peer.sent(self.hearth.name, topic)
        path = f"/rooms/{quote(room.room_id)}/state/m.room.topic"
        await eventually(partial(self.answers, path, 200))
        del self.peer.on["state_ids"]
        await self.completion.complete(room.room_id)
        self.assertTrue(await self.answers(path, 404))
        sent = await self.alice.send(room.room_id)
        await eventually(partial(room.events.__contains__, sent))

    async def answers(self, path: str, status: int) -> bool:
        return (await self.alice.call("GET", path)).status == status

    async def test_after_a_restart(self) -> None:
        """Shows FJ-6: the job goes on with it, in whichever process."""
        room = await self.big_room()
        self.peer.on["state_ids"] = always(Reply(hang=True))
        await self.joined(room)
        self.assertTrue(await self.is_partial(room))
        await self.hearth.restart()
        self.alice.server = self.hearth
        self.assertTrue(await self.is_partial(room))
        del self.peer.on["state_ids"]
        [job] = await self.waiting_jobs()
        await self.completion.run(job)
        self.assertEqual(await self.state(room), set(room.state.values()))

    async def test_tried_again_and_given_up(self) -> None:
        room = await self.big_room()
        self.peer.on["state_ids"] = always(Reply({}, 500))
        await self.joined(room)
        [job] = await self.waiting_jobs()
        await self.completion.run(job)
        waiting = await self.waiting_jobs()
        self.assertEqual({each.payload["tries"] for each in waiting}, {0, 1})
        self.assertTrue(await self.is_partial(room))

        def age(txn: Transaction) -> None:
            txn.execute("UPDATE partial_rooms SET started_ts = started_ts - ?", (GIVE_UP_MS + 1,))

        await self.hearth.homeserver.db.write(age)
        await self.completion.run(job)
        self.assertFalse(await self.is_partial(room))
        self.assertEqual(len(await self.waiting_jobs()), 2)

    async def waiting_jobs(self) -> list[Job]:
        def read(txn: Transaction) -> list[Job]:
            rows = txn.all(
                "SELECT job_id, kind, payload, attempts FROM jobs WHERE kind = ? ORDER BY run_at",
                (Completion.KIND,),
            )
            return [Job(job_id, kind, json.loads(text), n) for job_id, kind, text, n in rows]

        return await self.hearth.homeserver.db.read(read)

    async def test_two_servers(self) -> None:
        """Shows FJ-6."""
        await self.start()
        other = await add_server(self, self.federation)
        carol = await other.register("carol")
        room_id = await carol.create_room(preset="public_chat", name="Large")
        for number in range(8):
            user = await other.register(f"member{number}")
            await user.join(room_id)
        path = f"/join/{quote(room_id, safe='')}"
        answer = await self.alice.call("POST", path, {}, query={"via": other.name})
        self.assertEqual(answer.status, 200, answer.body)
        members = f"/rooms/{quote(room_id)}/joined_members"

        async def same() -> bool:
            mine = (await self.alice.ok("GET", members))["joined"]
            theirs = (await carol.ok("GET", members))["joined"]
            return len(mine) == 10 and mine == theirs

        await eventually(same)
