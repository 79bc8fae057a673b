"""Small proposals over the API: MSC3391, MSC3773, MSC4155, MSC4446, and the oldest prefix."""

from __future__ import annotations

import json
from typing import Any

from tests.homeserver.api.client.test_account_data import data_of, room_data_of
from tests.support.room_case import RoomTestCase, log_in, q

UNSTABLE = "/_matrix/client/unstable/org.matrix.msc3391"


class DeletedAccountDataTest(RoomTestCase):
    async def test_deleted_items_are_gone(self) -> None:
        """Of MSC3391: by DELETE and by an empty object; told once, never to a new client."""
        await self.start()
        user = f"/user/{q(self.alice.user_id)}"
        for place in ("", f"/rooms/{q(self.room_id)}"):
            item = f"{user}{place}/account_data/org.example.x"
            data = room_data_of if place else data_of
            arguments = (self.room_id,) if place else ()
            for method, path, body in (("DELETE", f"{UNSTABLE}{item}", None), ("PUT", item, {})):
                await self.alice.ok("PUT", item, {"n": 1})
                since = (await self.alice.sync())["next_batch"]
                self.assertEqual(await self.alice.ok(method, path, body), {})
                answer = await self.alice.call("GET", item)
                self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
                news = await self.alice.sync(since)
                self.assertEqual(data(news, *arguments), {"org.example.x": {}})
                # Again, and it is no news.
                self.assertEqual(await self.alice.ok(method, path, body), {})
                later = await self.alice.sync(news["next_batch"])
                self.assertEqual(data(later, *arguments), {})
                self.assertNotIn("org.example.x", data(await self.alice.sync(), *arguments))

    async def test_what_cannot_be_deleted(self) -> None:
        await self.start()
        for path, status, errcode in (
            (f"/user/{q(self.bob.user_id)}/account_data/x", 403, "M_FORBIDDEN"),
            (f"/user/{q(self.alice.user_id)}/account_data/m.push_rules", 405, "M_BAD_JSON"),
            (
                f"/user/{q(self.alice.user_id)}/rooms/{q(self.room_id)}/account_data/m.fully_read",
                405,
                "M_BAD_JSON",
            ),
            (f"/user/{q(self.alice.user_id)}/account_data/{'t' * 256}", 400, "M_INVALID_PARAM"),
            (f"/user/{q(self.alice.user_id)}/rooms/x/account_data/t", 400, "M_INVALID_PARAM"),
        ):
            answer = await self.alice.call("DELETE", UNSTABLE + path)
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), path)

    async def test_settings_of_a_device_that_is_gone_are_told(self) -> None:
        """Of MSC3890: other devices of the user learn of it."""
        await self.start()
        other = await log_in(self.server, self.alice)
        kind = f"org.matrix.msc3890.local_notification_settings.{other.device_id}"
        path = f"/user/{q(self.alice.user_id)}/account_data/{kind}"
        await self.alice.ok("PUT", path, {"is_silenced": True})
        since = (await self.alice.sync())["next_batch"]
        await other.ok("POST", "/logout", {})
        self.assertEqual(data_of(await self.alice.sync(since)), {kind: {}})


class BackwardMarkerTest(RoomTestCase):
    async def test_the_marker_moves_back_when_asked(self) -> None:
        """Of MSC4446; receipts never move back."""
        await self.start()
        first = await self.alice.send(self.room_id)
        second = await self.alice.send(self.room_id)
        markers = f"/rooms/{q(self.room_id)}/read_markers"
        one = f"/rooms/{q(self.room_id)}/receipt/m.fully_read/{q(first)}"
        back = {"com.beeper.allow_backward": True}
        item = f"/user/{q(self.alice.user_id)}/rooms/{q(self.room_id)}/account_data/m.fully_read"
        for path, body in ((markers, {"m.fully_read": first, "m.read": first}), (one, {})):
            await self.alice.ok("POST", markers, {"m.fully_read": second, "m.read": second})
            await self.alice.ok("POST", path, {**body, "com.beeper.allow_backward": False})
            self.assertEqual(await self.alice.ok("GET", item), {"event_id": second})
            since = (await self.alice.sync())["next_batch"]
            await self.alice.ok("POST", path, {**body, **back})
            self.assertEqual(await self.alice.ok("GET", item), {"event_id": first})
            news = await self.alice.sync(since)
            expected = {"m.fully_read": {"event_id": first}}
            self.assertEqual(room_data_of(news, self.room_id), expected)
            room = news["rooms"]["join"][self.room_id]
            self.assertEqual(room.get("ephemeral", {}).get("events", []), [])

    async def test_other_uses_are_refused(self) -> None:
        await self.start()
        event_id = await self.alice.send(self.room_id)
        root = f"/rooms/{q(self.room_id)}"
        for path, value, errcode in (
            (f"receipt/m.read/{q(event_id)}", True, "M_INVALID_PARAM"),
            (f"receipt/m.fully_read/{q(event_id)}", "yes", "M_BAD_JSON"),
            ("read_markers", 1, "M_BAD_JSON"),
        ):
            body = {"com.beeper.allow_backward": value}
            answer = await self.alice.call("POST", f"{root}/{path}", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, errcode), path)


class InviteListsTest(RoomTestCase):
    async def test_lists_decide_on_each_inviter(self) -> None:
        """Of MSC4155: who is blocked is told so, who is ignored is not."""
        await self.start()
        carol = await self.server.register("carol")
        kind = "org.matrix.msc4155.invite_permission_config"
        path = f"/user/{q(self.bob.user_id)}/account_data/{kind}"
        lists = {"blocked_users": [self.alice.user_id], "ignored_users": [carol.user_id]}
        await self.bob.ok("PUT", path, lists)
        target = {"user_id": self.bob.user_id}
        answer = await self.alice.call("POST", f"/rooms/{q(self.room_id)}/invite", target)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_INVITE_BLOCKED"))
        ignored = await carol.create_room()
        first = await self.bob.sync()
        await carol.invite(ignored, self.bob.user_id)
        listed: dict[str, Any] = {"lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1}}}
        sliding = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
        for answered in (
            await self.bob.sync(first["next_batch"]),
            await self.bob.sync(),
            await self.bob.ok("POST", sliding, listed),
        ):
            rooms = answered.get("rooms", {})
            self.assertNotIn(ignored, rooms.get("invite", {}))
            self.assertNotIn(ignored, rooms)
        # The room has the invite all the same, and it shows when the user wants that.
        members = await carol.ok("GET", f"/rooms/{q(ignored)}/members")
        states = {e["state_key"]: e["content"]["membership"] for e in members["chunk"]}
        self.assertEqual(states[self.bob.user_id], "invite")
        await self.bob.ok("PUT", path, {**lists, "enabled": False})
        self.assertIn(ignored, (await self.bob.sync())["rooms"]["invite"])

    async def test_the_simple_form_under_its_old_name(self) -> None:
        """Of MSC4380."""
        await self.start()
        kind = "org.matrix.msc4380.invite_permission_config"
        path = f"/user/{q(self.bob.user_id)}/account_data/{kind}"
        await self.bob.ok("PUT", path, {"default_action": "block"})
        target = {"user_id": self.bob.user_id}
        answer = await self.alice.call("POST", f"/rooms/{q(self.room_id)}/invite", target)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_INVITE_BLOCKED"))


class OldNamesTest(RoomTestCase):
    async def test_counts_of_threads_under_their_old_name(self) -> None:
        """Of MSC3773."""
        await self.start()
        await self.bob.join(self.room_id)
        root = await self.bob.send(self.room_id)
        relation = {"rel_type": "m.thread", "event_id": root}
        await self.bob.send(
            self.room_id, {"msgtype": "m.text", "body": "x", "m.relates_to": relation}
        )
        name = "unread_thread_notifications"
        expected = {root: {"notification_count": 1, "highlight_count": 0}}
        for asked, is_old in ((name, False), (f"org.matrix.msc3773.{name}", True)):
            wanted = json.dumps({"room": {"timeline": {asked: True}}})
            room = (await self.alice.sync(filter=wanted))["rooms"]["join"][self.room_id]
            self.assertEqual(room[name], expected)
            self.assertEqual(f"org.matrix.msc3773.{name}" in room, is_old)
            if is_old:
                self.assertEqual(room[f"org.matrix.msc3773.{name}"], expected)

    async def test_the_oldest_prefix(self) -> None:
        await self.start()
        found = await self.alice.ok("GET", "/_matrix/client/api/v1/account/whoami")
        self.assertEqual(found["user_id"], self.alice.user_id)

    async def test_flags(self) -> None:
        await self.start()
        answer = await self.server.client.get("/_matrix/client/versions")
        for flag in (
            "org.matrix.msc3391",
            "com.beeper.msc4446",
            "org.matrix.msc4155",
            "org.matrix.msc3773",
            "org.matrix.msc4380.stable",
            "uk.timedout.msc4323",
        ):
            self.assertIs(answer.body["unstable_features"].get(flag), True, flag)
