"""What redacted events said, for moderators (MSC2815)."""

from __future__ import annotations

from typing import Any

from homeserver.rooms.forgetting import Forgetting
from storage import redacted_contents
from tests.support.client import Answer
from tests.support.room_case import TEXT, RoomTestCase, q
from tests.support.server import User, make_server

DAY = 86_400_000


class UnredactedTest(RoomTestCase):
    async def begin(self, **settings: Any) -> None:
        await self.start()
        if settings:
            self.server = await make_server(self, **settings)
            self.alice = await self.server.register("alice")
            self.bob = await self.server.register("bob")
            self.room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.join(self.room_id)
        self.event_id = await self.bob.send(self.room_id, TEXT)
        await self.put_ok(self.bob, f"redact/{q(self.event_id)}/r", {"reason": "oops"})

    async def ask(self, user: User, value: Any = "true", event_id: str = "") -> Answer:
        path = f"/rooms/{q(self.room_id)}/event/{q(event_id or self.event_id)}"
        query = {"fi.mau.msc2815.include_unredacted_content": value}
        return await user.call("GET", path, query=query)

    def assert_error(self, answer: Answer, status: int, errcode: str) -> None:
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode), answer)

    async def test_who_may_look(self) -> None:
        await self.begin()
        stranger = await self.server.register("stranger")
        answer = await self.ask(self.alice)
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.body["content"], TEXT)
        self.assertEqual(answer.body["unsigned"]["redacted_because"]["content"]["reason"], "oops")
        self.assertEqual((await self.ask(self.alice, "false")).body["content"], {})
        # Also of one's own event: what counts is the right to redact others'.
        self.assert_error(await self.ask(self.bob), 403, "M_FORBIDDEN")
        self.assert_error(await self.ask(stranger), 404, "M_NOT_FOUND")
        self.assert_error(await self.ask(self.alice, "perhaps"), 400, "M_INVALID_PARAM")
        self.assert_error(await self.ask(self.alice, event_id="$none"), 404, "M_NOT_FOUND")
        kept = await self.alice.send(self.room_id, TEXT)
        self.assertEqual((await self.ask(self.alice, event_id=kept)).body["content"], TEXT)
        # Nothing else shows it.
        event = await self.event(self.alice, self.event_id)
        self.assertEqual(event["content"], {})

    async def test_it_is_kept_for_a_time(self) -> None:
        await self.begin()
        forgetting = self.server.homeserver.services[Forgetting]
        await forgetting.run()
        self.assertEqual((await self.ask(self.alice)).status, 200)
        db = self.server.homeserver.db
        await db.write(redacted_contents.delete_old, 2**50, 7 * DAY)
        answer = await self.ask(self.alice)
        self.assert_error(answer, 404, "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED")
        self.assertEqual(answer.body["fi.mau.msc2815.content_keep_ms"], 7 * DAY)

    async def test_nothing_is_kept_if_so_configured(self) -> None:
        await self.begin(redactions={"keep_content": "0s"})
        answer = await self.ask(self.alice)
        self.assert_error(answer, 404, "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED")
        self.assertEqual(answer.body["fi.mau.msc2815.content_keep_ms"], 0)

    async def test_users_who_are_erased(self) -> None:
        await self.begin()
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "wonderland",
        }
        await self.bob.ok("POST", "/account/deactivate", {"auth": auth, "erase": True})
        answer = await self.ask(self.alice)
        self.assert_error(answer, 404, "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED")
        flags = (await self.server.client.get("/_matrix/client/versions")).body
        self.assertIs(flags["unstable_features"]["fi.mau.msc2815"], True)
