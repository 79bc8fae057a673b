"""What users reported, for administrators."""

from __future__ import annotations

from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.room_case import q

EVENTS = f"{V1}/event_reports"
USERS = f"{V1}/user_reports"


class ReportsTest(AdminTestCase):
    async def test_events(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        room_id = await self.alice.create_room(
            preset="public_chat", name="Hall", room_alias_name="hall"
        )
        await self.bob.join(room_id)
        sent = [await self.bob.send(room_id, "one"), await self.alice.send(room_id, "two")]
        for number, event_id in enumerate(sent):
            body = {"reason": f"r{number}", "score": -number}
            path = f"/rooms/{q(room_id)}/report/{q(event_id)}"
            await (self.alice, self.bob)[number].ok("POST", path, body)
        answer = await self.alice.ok("GET", EVENTS)
        self.assertEqual((answer["total"], "next_token" in answer), (2, False))
        newest = answer["event_reports"][0]
        self.assertEqual(
            {key: value for key, value in newest.items() if key not in ("id", "received_ts")},
            {
                "room_id": room_id,
                "event_id": sent[1],
                "user_id": self.bob.user_id,
                "score": -1,
                "reason": "r1",
                "sender": self.alice.user_id,
                "canonical_alias": "#hall:hearth.test",
                "name": "Hall",
            },
        )
        first = await self.alice.ok("GET", f"{EVENTS}?dir=f&limit=1")
        self.assertEqual(first["event_reports"][0]["reason"], "r0")
        self.assertEqual(first["next_token"], 1)
        rest = await self.alice.ok("GET", f"{EVENTS}?dir=f&limit=1&from=1")
        self.assertEqual(rest["event_reports"], [newest])
        for name, value, number in (
            ("user_id", self.bob.user_id, 1),
            ("room_id", room_id, 2),
            ("room_id", "!other:x", 0),
            ("event_sender_user_id", self.alice.user_id, 1),
        ):
            found = await self.alice.ok("GET", EVENTS, query={name: value})
            self.assertEqual((found["total"], len(found["event_reports"])), (number, number))
        whole = await self.alice.ok("GET", f"{EVENTS}/{newest['id']}")
        event = whole.pop("event_json")
        self.assertEqual(whole, newest)
        self.assertEqual((event["content"]["body"], event["room_id"]), ("two", room_id))
        self.assertEqual(await self.alice.ok("DELETE", f"{EVENTS}/{newest['id']}"), {})
        await self.unknown("DELETE", f"{EVENTS}/{newest['id']}")
        await self.unknown("GET", f"{EVENTS}/{newest['id']}")

    async def test_users(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        report = f"/users/{q(self.alice.user_id)}/report"
        await self.bob.ok("POST", report, {"reason": "rude"})
        answer = await self.alice.ok("GET", USERS)
        [shown] = answer["user_reports"]
        self.assertEqual(
            (shown["target_user_id"], shown["user_id"], shown["reason"], answer["total"]),
            (self.alice.user_id, self.bob.user_id, "rude", 1),
        )
        for name, value, number in (
            ("user_id", self.bob.user_id, 1),
            ("target_user_id", self.bob.user_id, 0),
        ):
            found = await self.alice.ok("GET", USERS, query={name: value})
            self.assertEqual(found["total"], number)
        path = f"{USERS}/{shown['id']}"
        self.assertEqual(await self.alice.ok("GET", path), shown)
        # Reports of one kind are not found among those of another.
        await self.unknown("GET", f"{EVENTS}/{shown['id']}")
        await self.unknown("DELETE", f"{EVENTS}/{shown['id']}")
        self.assertEqual(await self.alice.ok("DELETE", path), {})
        await self.unknown("GET", path)
        await self.unknown("DELETE", path)

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        for path in (EVENTS, USERS):
            for bad in ("from=-1", "limit=-1", "limit=x", "dir=x"):
                told = await self.refused("M_INVALID_PARAM", "GET", f"{path}?{bad}")
                self.assertIn(bad.partition("=")[0], told)
            for method in ("GET", "DELETE"):
                for bad in ("x", "-1", "9" * 30):
                    await self.refused("M_INVALID_PARAM", method, f"{path}/{bad}")
