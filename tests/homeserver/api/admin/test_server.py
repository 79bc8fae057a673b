"""What software this is, and what it has to do."""

from __future__ import annotations

from homeserver import __version__
from storage import jobs
from tests.homeserver.api.admin.case import V1, AdminTestCase

TASKS = f"{V1}/scheduled_tasks"


class ServerTest(AdminTestCase):
    async def test_version_for_everybody(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        answer = await self.server.client.get(f"{V1}/server_version")
        self.assertEqual(answer, (200, {"server_version": f"Hearth {__version__}"}))

    async def test_tasks(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        db = self.server.homeserver.db
        await db.write(jobs.enqueue, "nobodys", {"room_id": "!a:x"}, 1_000, run_at=9_000)
        await db.write(jobs.enqueue, "others", {"user_id": "@a:x", "text": "s3cret"}, 2_000)
        answer = await self.alice.ok("GET", TASKS)
        told = {each["action"]: each for each in answer["scheduled_tasks"]}
        self.assertEqual(
            {key: value for key, value in told["nobodys"].items() if key != "id"},
            {
                "action": "nobodys",
                "status": "scheduled",
                "timestamp_ms": 9_000,
                "resource_id": "!a:x",
                "result": None,
                "error": None,
            },
        )
        self.assertEqual(told["others"]["resource_id"], "@a:x")
        self.assertNotIn("s3cret", str(answer))
        for query, number in (
            ("action_name=others", 1),
            ("resource_id=!a:x", 1),
            ("status=scheduled", 2),
            ("status=failed", 0),
            ("max_timestamp=3000", 1),
        ):
            found = (await self.alice.ok("GET", f"{TASKS}?{query}"))["scheduled_tasks"]
            self.assertEqual(len(found), number, query)
        await self.refused("M_INVALID_PARAM", "GET", f"{TASKS}?status=x")
        await self.refused("M_INVALID_PARAM", "GET", f"{TASKS}?max_timestamp=x")
