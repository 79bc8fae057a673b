"""Purged and deleted rooms between servers: what is fetched again, and what others see."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.rooms.room_tasks import RoomTasks
from tests.federation.test_history import all_pages
from tests.support.admin import make_admin
from tests.support.federation import FederatedServer, eventually, make_federation
from tests.support.server import User

ADMIN = "/_synapse/admin/v1"


async def purge(
    server: FederatedServer, admin: User, room_id: str, event_id: str, local: bool = True
) -> None:
    """Purge a room up to an event."""
    path = f"{ADMIN}/purge_history/{quote(room_id)}/{quote(event_id)}"
    answer = await admin.ok("POST", path, {"delete_local_events": local})
    task = await server.homeserver.services[RoomTasks].over(answer["purge_id"])
    assert task is not None and task.status == "complete", task


async def joined(user: User, room_id: str) -> list[str]:
    path = f"/rooms/{quote(room_id)}/joined_members"
    return sorted((await user.ok("GET", path))["joined"])


class TestPurging(TestCase):
    timeout = 120

    async def test_history_is_fetched_again(self) -> None:
        """What one server purged, the other one has, redacted where it was. Shows XC-4."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await make_admin(await b.register("bob"))
        for version in ("2", "11", "12"):
            room_id = await alice.create_room(preset="public_chat", room_version=version)
            await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
            sent = []
            for number in range(12):
                sent.append(await alice.send(room_id, f"message {number}"))
                await alice.set_state(room_id, "m.room.topic", {"topic": str(number)})
            oops = sent[3]
            await alice.ok("PUT", f"/rooms/{quote(room_id)}/redact/{quote(oops)}/t", {})
            last = await bob.send(room_id, "from here")

            async def is_here(user: User = alice, last: str = last, room_id: str = room_id) -> bool:
                return last in await all_pages(user, room_id)

            await eventually(is_here)
            whole = await all_pages(bob, room_id)
            await purge(b, bob, room_id, sent[8])
            for event_id in (sent[0], oops, sent[7]):
                path = f"/rooms/{quote(room_id)}/event/{quote(event_id)}"
                self.assertEqual((await bob.call("GET", path)).status, 404)
            await alice.send(room_id, "and on")
            late = await bob.send(room_id, "yes, on")
            await eventually(partial(is_here, alice, late))
            again = await all_pages(bob, room_id)
            self.assertLessEqual(set(whole), set(again), version)
            self.assertEqual(sorted(again), sorted(await all_pages(alice, room_id)), version)
            event = await bob.ok("GET", f"/rooms/{quote(room_id)}/event/{quote(oops)}")
            self.assertEqual(event["content"], {}, version)

    async def test_own_events_find_their_places_again(self) -> None:
        """What this server's users sent is kept, and shown again with what lies around it."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await make_admin(await b.register("bob"))
        room_id = await alice.create_room(preset="public_chat")
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        for number in range(4):
            last = await bob.send(room_id, f"mine {number}")

        async def is_here(user: User, event_id: str) -> bool:
            return event_id in await all_pages(user, room_id)

        await eventually(partial(is_here, alice, last))
        late = await alice.send(room_id, "hers")
        await eventually(partial(is_here, bob, late))
        whole = await all_pages(bob, room_id)
        await purge(b, bob, room_id, late, local=False)
        path = f"/rooms/{quote(room_id)}/event/{quote(last)}"
        self.assertEqual((await bob.call("GET", path)).status, 404)
        fetched = await bob.ok("GET", f"{ADMIN}/fetch_event/{quote(last)}")
        self.assertEqual(fetched["event"]["content"]["body"], "mine 3")
        self.assertEqual(sorted(await all_pages(bob, room_id)), sorted(whole))
        self.assertEqual((await bob.ok("GET", path))["content"]["body"], "mine 3")

    async def test_events_that_build_on_purged_ones(self) -> None:
        """A server that was cut off goes on with what it knew; all end with one state."""
        a, b = federation = await make_federation(self, 2)
        alice, bob = await make_admin(await a.register("alice")), await b.register("bob")
        room_id = await alice.create_room(preset="public_chat")
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        await alice.send(room_id, "before")
        federation.partition([a], [b])
        apart = await bob.send(room_id, "apart")
        for number in range(5):
            last = await alice.send(room_id, f"message {number}")
        await purge(a, alice, room_id, last)
        federation.heal()
        late = await bob.send(room_id, "late")

        async def meet() -> bool:
            pages = [await all_pages(user, room_id) for user in (alice, bob)]
            return all({apart, late, last} <= set(page) for page in pages)

        await eventually(meet)
        self.assertEqual(await joined(alice, room_id), await joined(bob, room_id))

    async def test_heads_are_brought_together(self) -> None:
        """Forward extremities are listed, and become one. Shows XC-4."""
        a, b = federation = await make_federation(self, 2)
        alice, bob = await make_admin(await a.register("alice")), await b.register("bob")
        room_id = await alice.create_room(preset="public_chat")
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        federation.partition([a], [b])
        apart = {await alice.send(room_id, "here"), await bob.send(room_id, "there")}
        federation.heal()
        path = f"{ADMIN}/rooms/{quote(room_id)}/forward_extremities"

        async def heads() -> set[str]:
            return {head["event_id"] for head in (await alice.ok("GET", path))["results"]}

        async def has_both() -> bool:
            return await heads() == apart

        await eventually(has_both)
        self.assertEqual(await alice.ok("DELETE", path), {"deleted": 1})
        self.assertEqual(len(await heads()), 1)
        self.assertFalse(apart & await heads())
        last = await alice.send(room_id, "on")

        async def heard() -> bool:
            return last in await all_pages(bob, room_id)

        await eventually(heard)


class TestDeleting(TestCase):
    timeout = 120

    async def delete(self, admin: User, room_id: str, **body: Any) -> Any:
        return await admin.ok("DELETE", f"{ADMIN}/rooms/{quote(room_id)}", body)

    async def test_a_deleted_room_is_joined_again(self) -> None:
        """The others hear of the leave; nothing stands in the way of coming back. Shows XC-4."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await make_admin(await b.register("bob"))
        room_id = await alice.create_room(preset="public_chat", name="Far")
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        await bob.send(room_id, "hello")
        before = (await bob.sync())["next_batch"]
        answer = await self.delete(bob, room_id)
        self.assertEqual(answer["kicked_users"], [bob.user_id])

        async def alone() -> bool:
            return await joined(alice, room_id) == [alice.user_id]

        await eventually(alone)
        left = (await bob.sync(before))["rooms"]["leave"][room_id]["timeline"]["events"]
        self.assertEqual([e["content"]["membership"] for e in left], ["leave"])
        said = await alice.send(room_id, "gone?")
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        self.assertEqual(await joined(bob, room_id), sorted([alice.user_id, bob.user_id]))
        self.assertIn(said, await all_pages(bob, room_id))
        reply = await bob.send(room_id, "back")

        async def heard() -> bool:
            return reply in await all_pages(alice, room_id)

        await eventually(heard)
        synced = await bob.sync(before)
        self.assertIn(room_id, synced["rooms"]["join"])
        self.assertNotIn("leave", synced["rooms"])

    async def test_blocked_rooms_of_others(self) -> None:
        """Neither joined nor invited to; also if they never were known here. Shows XC-4."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await make_admin(await b.register("bob"))
        room_id = await alice.create_room(preset="public_chat")
        path = f"{ADMIN}/rooms/{quote(room_id)}/block"
        self.assertEqual(await bob.ok("PUT", path, {"block": True}), {"block": True})
        self.assertEqual(await bob.ok("GET", path), {"block": True, "user_id": bob.user_id})
        join = f"/join/{quote(room_id)}"
        answer = await bob.call("POST", join, {}, query={"via": a.name})
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        invite = {"user_id": bob.user_id}
        answer = await alice.call("POST", f"/rooms/{quote(room_id)}/invite", invite)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await bob.ok("PUT", path, {"block": False})
        await bob.ok("POST", join, {}, query={"via": a.name})
