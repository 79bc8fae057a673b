"""History between servers over the network: backfill, missing events, jumping to a date."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.federation import eventually, make_federation
from tests.support.peer import Peer, PeerRoom, make_peer
from tests.support.server import User


async def all_pages(user: User, room_id: str, limit: int = 50) -> list[str]:
    """The event IDs of a room's history as a user pages through it, from the newest."""
    found: list[str] = []
    query: dict[str, Any] = {"dir": "b", "limit": limit}
    for _ in range(100):
        page = await user.ok("GET", f"/rooms/{room_id}/messages", query=query)
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            return found
        query["from"] = page["end"]
    raise AssertionError("the pages never end")


class PairTest(TestCase):
    timeout = 120

    async def test_backfill(self) -> None:
        """Whoever joins on another server pages to the room's beginning. Shows BF-8, BF-9."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await b.register("bob")
        for version in ("1", "3", "6", "11", "12"):
            room_id = await alice.create_room(preset="public_chat", room_version=version)
            for number in range(120):
                await alice.send(room_id, f"message {number}")
            await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
            since = (await bob.sync())["next_batch"]
            found = await all_pages(bob, room_id)
            self.assertEqual(found, await all_pages(alice, room_id), version)
            self.assertGreater(len(found), 120)
            news = await bob.sync(since)
            self.assertNotIn(room_id, news.get("rooms", {}).get("join", {}))

    async def test_visibility(self) -> None:
        """Of history that only members may see, those who join later see nothing. Shows BF-8."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await b.register("bob")
        visibility = {
            "type": "m.room.history_visibility",
            "state_key": "",
            "content": {"history_visibility": "joined"},
        }
        room_id = await alice.create_room(preset="public_chat", initial_state=[visibility])
        secret = [await alice.send(room_id, "secret") for _ in range(5)]
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        after = await alice.send(room_id, "for all")

        async def heard() -> bool:
            return after in await all_pages(bob, room_id)

        await eventually(heard)
        self.assertFalse(set(secret) & set(await all_pages(bob, room_id)))

    async def test_jumping_to_a_date(self) -> None:
        """The event of a time that only the other server knows is found. Shows BF-11."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await b.register("bob")
        room_id = await alice.create_room(preset="public_chat")
        told = [await alice.send(room_id, f"message {number}") for number in range(8)]
        events = [await alice.ok("GET", f"/rooms/{room_id}/event/{name}") for name in told]
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        path = f"/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"
        ts = events[3]["origin_server_ts"]
        found = await bob.ok("GET", path, query={"ts": ts, "dir": "b"})
        self.assertEqual(found, await alice.ok("GET", path, query={"ts": ts, "dir": "b"}))
        shown = await bob.ok("GET", f"/rooms/{room_id}/context/{found['event_id']}")
        self.assertIn(shown["event"]["event_id"], told)


class PeerTest(TestCase):
    timeout = 120

    async def meet(self) -> tuple[User, Peer, PeerRoom]:
        """A scripted server in a room of Alice's."""
        (hearth,) = federation = await make_federation(self, 1)
        peer = await make_peer(self, federation)
        alice = await hearth.register("alice")
        self.room_id = await alice.create_room(preset="public_chat", room_version="10")
        self.name = hearth.name
        return alice, peer, await peer.join(hearth.name, self.room_id)

    async def seen(self, alice: User, event_id: str) -> None:
        async def there() -> bool:
            status, _ = await alice.call("GET", f"/rooms/{self.room_id}/event/{event_id}")
            return status == 200

        await eventually(there)

    async def test_missing_events(self) -> None:
        """What a server did not send is asked for. Shows RECV-8."""
        alice, peer, room = await self.meet()
        told = [room.message(peer.user(), f"message {number}") for number in range(30)]
        await peer.send(self.name, [told[-1]])
        for event in (told[-1], told[0]):
            await self.seen(alice, event.event_id)
        self.assertEqual(peer.faults, [])

    async def test_rubbish(self) -> None:
        """Answers of rubbish to everything change nothing, and the room lives on. Shows RECV-8."""
        alice, peer, room = await self.meet()
        for name in ("missing", "state_ids", "state", "event", "event_auth", "backfill"):
            peer.on[name] = lambda request: {
                key: [1, None, {}, {"event_id": "$x"}, [[]]]
                for key in ("events", "pdus", "pdu_ids", "auth_chain", "auth_chain_ids")
            }
        before = await alice.ok("GET", f"/rooms/{self.room_id}/state")
        lost, last = room.message(peer.user(), "lost"), room.message(peer.user(), "last")
        status, _ = await peer.send(self.name, [last])
        self.assertEqual(status, 200)
        await eventually(lambda: peer.received("state_ids"))
        event_id = await alice.send(self.room_id, "still here")
        await self.seen(alice, event_id)
        status, _ = await alice.call("GET", f"/rooms/{self.room_id}/event/{lost.event_id}")
        self.assertEqual(status, 404)
        after = await alice.ok("GET", f"/rooms/{self.room_id}/state")
        self.assertEqual(
            sorted(event["event_id"] for event in before),
            sorted(event["event_id"] for event in after),
        )
