"""Redacting all that a user sent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.rooms import mass_redactions
from homeserver.rooms.mass_redactions import MassRedactions
from storage import jobs
from storage import mass_redactions as rows
from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.admin import make_admin
from tests.support.federation import make_federation
from tests.support.network import eventually
from tests.support.room_case import q
from tests.support.server import User


class RedactCase(AdminTestCase):
    async def redact(self, user: User, **body: Any) -> Any:
        """Have what a user sent redacted, and wait; the status then."""
        path = f"{V1}/user/{q(user.user_id)}/redact"
        answer = await self.alice.ok("POST", path, {"rooms": [], **body})
        return await self.status(answer["redact_id"])

    async def status(self, redact_id: str) -> Any:
        found: Any = None

        async def is_over() -> bool:
            nonlocal found
            found = await self.alice.ok("GET", f"{V1}/user/redact_status/{redact_id}")
            return found["status"] in ("complete", "failed")

        await eventually(is_over)
        return found

    async def bodies(self, room_id: str) -> list[Any]:
        """Texts of the messages of a room, None for those that are redacted; the newest first."""
        self.room_id = room_id
        return [
            event["content"].get("body")
            for event in await self.messages(self.alice)
            if event["type"] == "m.room.message"
        ]


def _run(service: MassRedactions, job: jobs.Job) -> Deferred[None]:
    return Deferred.fromCoroutine(service.run(job))


class RedactTest(RedactCase):
    async def test_all_that_a_user_sent(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        self.patch(mass_redactions, "LOOKED_AT", 4)
        one = await self.alice.create_room(preset="public_chat")
        two = await self.bob.create_room(preset="public_chat")
        await self.bob.join(one)
        await self.alice.join(two)
        for number in range(5):
            await self.bob.send(one, f"b{number}")
            await self.alice.send(one, f"a{number}")
        await self.bob.send(two, "b")
        topic = await self.bob.set_state(two, "m.room.topic", {"topic": "mine"})
        status = await self.redact(self.bob, reason="spam")
        self.assertEqual(status, {"status": "complete", "failed_redactions": {}})
        self.assertEqual(
            await self.bodies(one),
            ["a4", None, "a3", None, "a2", None, "a1", None, "a0", None],
        )
        self.assertEqual(await self.bodies(two), [None])
        # The room's state stays.
        self.assertEqual((await self.event(self.alice, topic))["content"], {"topic": "mine"})
        redactions = [
            event
            for event in await self.messages(self.alice)
            if event["type"] == "m.room.redaction"
        ]
        self.assertEqual({each["sender"] for each in redactions}, {self.bob.user_id})
        self.assertEqual({each["content"]["reason"] for each in redactions}, {"spam"})
        tasks = await self.alice.ok("GET", f"{V1}/scheduled_tasks?action_name=redact_all_events")
        [task] = tasks["scheduled_tasks"]
        self.assertEqual((task["resource_id"], task["status"]), (self.bob.user_id, "complete"))

    async def test_only_what_is_wanted(self) -> None:
        """Rooms, numbers and times. Shows XC-4."""
        await self.prepare()
        one, two = [await self.alice.create_room(preset="public_chat") for _ in range(2)]
        for room_id in (one, two):
            await self.bob.join(room_id)
        sent = [await self.bob.send(one, f"b{number}") for number in range(3)]
        await self.bob.send(two, "other")
        self.room_id = one
        last = (await self.event(self.bob, sent[2]))["origin_server_ts"]
        await self.redact(self.bob, rooms=[one], after_ts=last + 1)
        await self.redact(self.bob, rooms=[one], before_ts=5)
        self.assertEqual(await self.bodies(one), ["b2", "b1", "b0"])
        await self.redact(self.bob, rooms=[one], limit=1)
        self.assertEqual(await self.bodies(one), [None, "b1", "b0"])
        await self.redact(self.bob, rooms=[one, "!unknown:hearth.test"], after_ts=5)
        self.assertEqual(await self.bodies(one), [None, None, None])
        self.assertEqual(await self.bodies(two), ["other"])

    async def test_who_is_not_there_any_more(self) -> None:
        """The administrator does it where the user cannot; what cannot be done is told. Shows
        XC-4."""
        await self.prepare()
        mine = await self.alice.create_room(preset="public_chat")
        carol = await self.server.register("carol")
        hers = await carol.create_room(preset="public_chat", name="hers")
        for room_id in (mine, hers):
            await self.bob.join(room_id)
        await self.bob.send(mine, "one")
        event_id = await self.bob.send(hers, "two")
        await self.alice.ok("POST", f"/rooms/{q(mine)}/ban", {"user_id": self.bob.user_id})
        await self.bob.leave(hers)
        status = await self.redact(self.bob)
        self.assertEqual(await self.bodies(mine), [None])
        self.assertEqual(status["status"], "complete")
        self.assertIn(event_id, status["failed_redactions"])

    async def test_it_goes_on_after_a_crash(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        self.patch(mass_redactions, "LOOKED_AT", 3)
        room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.join(room_id)
        for number in range(4):
            await self.bob.send(room_id, f"b{number}")
        service = self.server.homeserver.services[MassRedactions]
        real, asked = service._write, 0

        async def failing(row: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 3:
                raise RuntimeError("the process dies here")
            return await real(row)

        service._write = failing  # type: ignore[method-assign]
        path = f"{V1}/user/{q(self.bob.user_id)}/redact"
        redact_id = (await self.alice.ok("POST", path, {"rooms": []}))["redact_id"]
        db = self.server.homeserver.db

        async def has_failed() -> bool:
            return asked >= 3

        await eventually(has_failed)
        row = await db.read(rows.get, redact_id)
        assert row is not None
        self.assertEqual(row.status, "active")
        await service.run(jobs.Job("j", service.KIND, {"redact_id": redact_id}, 2))
        self.assertEqual((await self.status(redact_id))["status"], "complete")
        self.assertEqual(await self.bodies(room_id), [None] * 4)
        redactions = [
            event
            for event in await self.messages(self.alice)
            if event["type"] == "m.room.redaction"
        ]
        # Each once: the messages, and that Bob came.
        self.assertEqual(len(redactions), 5)

        # One that fails for good tells so, whether or not the server's own try is under way.
        async def failing_always(row: Any) -> Any:
            if row.status == rows.ACTIVE:
                raise RuntimeError("the process dies here")
            return await real(row)

        service._write = failing_always  # type: ignore[method-assign]
        redact_id = (await self.alice.ok("POST", path, {"rooms": []}))["redact_id"]
        last = jobs.Job("j", service.KIND, {"redact_id": redact_id}, jobs.MAX_ATTEMPTS)
        await self.assertFailure(_run(service, last), RuntimeError)
        status = await self.status(redact_id)
        self.assertEqual(status["error"], "RuntimeError")

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/user/{q(self.bob.user_id)}/redact"
        await self.refused("M_MISSING_PARAM", "POST", path, {})
        await self.refused("M_BAD_JSON", "POST", path, {"rooms": "x"})
        await self.refused("M_INVALID_PARAM", "POST", path, {"rooms": ["x"]})
        told = await self.refused("M_INVALID_PARAM", "POST", path, {"rooms": [], "limit": 0})
        self.assertIn("limit", told)
        await self.refused("M_BAD_JSON", "POST", path, {"rooms": [], "after_ts": "x"})
        await self.unknown("POST", f"{V1}/user/@nobody:hearth.test/redact", {"rooms": []})
        await self.unknown("GET", f"{V1}/user/redact_status/nope")


class RemoteTest(RedactCase):
    async def test_users_of_other_servers(self) -> None:
        """By the administrator, where they may. Shows XC-4."""
        a, b = await make_federation(self)
        self.alice, self.bob = await make_admin(await a.register("alice")), await b.register("bob")
        room_id = await self.alice.create_room(invite=[self.bob.user_id])
        await self.bob.join(room_id)
        await self.bob.send(room_id, "theirs")

        async def arrived() -> bool:
            return await self.bodies(room_id) == ["theirs"]

        await eventually(arrived)
        status = await self.redact(self.bob)
        self.assertEqual(status, {"status": "complete", "failed_redactions": {}})
        self.assertEqual(await self.bodies(room_id), [None])
