"""Reporting over the API."""

from __future__ import annotations

from typing import Any

from homeserver.cli.reports import line
from storage import reports
from storage.reports import Report
from tests.support.room_case import RoomTestCase, q


class ReportsTest(RoomTestCase):
    async def kept(self) -> list[Report]:
        return await self.server.homeserver.db.read(reports.after, 0, 100)

    async def test_events_are_reported_by_those_who_are_there(self) -> None:
        """Shows MISC-9."""
        await self.start()
        event_id = await self.alice.send(self.room_id, "spam")
        path = f"/rooms/{q(self.room_id)}/report/{q(event_id)}"
        answer = await self.bob.call("POST", path, {"reason": "bad"})
        self.assert_error(answer, 404, "M_NOT_FOUND")
        await self.bob.join(self.room_id)
        for body in ({"reason": "bad", "score": -100}, {}):
            self.assertEqual(await self.bob.ok("POST", path, body), {})
        await self.bob.leave(self.room_id)
        answer = await self.bob.call("POST", path, {})
        self.assert_error(answer, 404, "M_NOT_FOUND")
        kept = await self.kept()
        self.assertEqual([each.report_id for each in kept], [1, 2])
        first = kept[0]._replace(received_ts=0)
        about = (self.room_id, event_id, self.alice.user_id, "bad", -100)
        self.assertEqual(first, Report(1, 0, self.bob.user_id, "event", *about))

    async def test_an_event_that_is_not_there(self) -> None:
        """Shows MISC-9."""
        await self.start()
        path = f"/rooms/{q(self.room_id)}/report/"
        for name in ("$nothing", "$" + "A" * 43):
            answer = await self.alice.call("POST", path + q(name), {"reason": "x"})
            self.assert_error(answer, 404, "M_NOT_FOUND")
        other = await self.alice.create_room()
        elsewhere = await self.alice.send(other)
        answer = await self.alice.call("POST", path + q(elsewhere), {"reason": "x"})
        self.assert_error(answer, 404, "M_NOT_FOUND")
        self.assertEqual(await self.kept(), [])

    async def test_rooms_and_users_are_reported_by_anybody(self) -> None:
        """Shows MISC-9."""
        await self.start(preset="private_chat")
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/report", {"reason": ""})
        await self.bob.ok("POST", f"/users/{q(self.alice.user_id)}/report", {"reason": "rude"})
        kept = [(each.kind, each.room_id, each.user_id) for each in await self.kept()]
        about = [("room", self.room_id, None), ("user", None, self.alice.user_id)]
        self.assertEqual(kept, about)
        for path in (
            "/rooms/!nothing:hearth.test/report",
            "/users/@nobody:hearth.test/report",
            "/users/@stranger:elsewhere.test/report",
        ):
            answer = await self.bob.call("POST", path, {"reason": "x"})
            self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_bad_requests(self) -> None:
        """Shows MISC-9."""
        await self.start()
        room = f"/rooms/{q(self.room_id)}/report"
        bad: list[Any] = [{}, {"reason": 5}, {"reason": None}, []]
        for body in bad:
            self.assertEqual((await self.bob.call("POST", room, body)).status, 400, body)
        answer = await self.bob.call("POST", "/users/nobody/report", {"reason": "x"})
        self.assert_error(answer, 400, "M_INVALID_PARAM")
        status, _ = await self.server.client.post(f"/_matrix/client/v3{room}", {"reason": "x"})
        self.assertEqual(status, 401)
        await self.bob.ok("POST", room, {"reason": "x" * 60_000})
        self.assertEqual(len((await self.kept())[0].reason), 4000)

    def test_what_users_wrote_cannot_control_a_terminal(self) -> None:
        """Shows MISC-9."""
        shown = line(Report(7, 0, "@b:x", "room", "!r\x1b[2J:x", None, None, "a\n\x1b]0;b\x07c"))
        self.assertEqual(len(shown.splitlines()), 1)
        self.assertTrue(shown.isprintable() or "\t" in shown)
        self.assertNotIn("\x1b", shown)
        self.assertTrue(shown.startswith("7\t1970-01-01 00:00:00\t@b:x\troom\t"))
