"""Room history visibility over the API: /messages, /event, /context and what else shows events."""

from __future__ import annotations

from typing import Any

from tests.support.room_case import TEXT, RoomTestCase, q
from tests.support.server import User

VISIBILITIES = ("joined", "invited", "shared", "world_readable")


def visibility(value: Any) -> dict[str, Any]:
    """Initial state that sets the history visibility."""
    return {"type": "m.room.history_visibility", "content": {"history_visibility": value}}


class VisibilityCase(RoomTestCase):
    async def start_with(self, value: Any, **room: Any) -> str:
        """A room with this visibility, with a name after it."""
        await self.start(initial_state=[visibility(value)], name="a room", **room)
        return self.room_id

    async def seen(self, user: User, event_ids: dict[str, str]) -> set[str]:
        """The names of those of the events that the user sees, the same on every way."""
        answer = await user.call("GET", f"/rooms/{q(self.room_id)}/messages?dir=b&limit=100")
        in_messages: set[str] = set()
        if answer.status == 200:
            shown = {event["event_id"] for event in answer.body["chunk"]}
            in_messages = {name for name, event_id in event_ids.items() if event_id in shown}
        else:
            self.assert_error(answer, 403, "M_FORBIDDEN")
        one_by_one = set()
        for name, event_id in event_ids.items():
            answers = [
                await user.call("GET", f"/rooms/{q(self.room_id)}/{what}/{q(event_id)}?limit=100")
                for what in ("event", "context")
            ]
            self.assertEqual(answers[0].status, answers[1].status)
            if answers[0].status == 200:
                one_by_one.add(name)
                self.assertEqual(answers[0].body["content"]["body"], name)
                around = answers[1].body
                near = [*around["events_before"], around["event"], *around["events_after"]]
                found = {event["event_id"] for event in near}
                self.assertEqual(found & set(event_ids.values()), self._ids(event_ids, in_messages))
            else:
                self.assert_error(answers[0], 404, "M_NOT_FOUND")
        self.assertEqual(in_messages, one_by_one)
        return in_messages

    @staticmethod
    def _ids(event_ids: dict[str, str], names: set[str]) -> set[str]:
        return {event_ids[name] for name in names}

    async def say(self, body: str) -> str:
        return await self.alice.send(self.room_id, body)


class ReadersTest(VisibilityCase):
    """The messages m0 to m4 are sent before, between and after what happens to the readers."""

    EVERYTHING = frozenset({"m0", "m1", "m2", "m3", "m4"})

    async def readers(self, value: str) -> dict[str, set[str]]:
        """What each kind of reader sees."""
        await self.start_with(value)
        carol, dave, erin = [await self.server.register(n) for n in ("carol", "dave", "erin")]
        sent = {"m0": await self.say("m0")}
        for user in (self.bob, dave):
            await self.alice.invite(self.room_id, user.user_id)
        sent["m1"] = await self.say("m1")
        await self.bob.join(self.room_id)
        sent["m2"] = await self.say("m2")
        await self.bob.leave(self.room_id)
        sent["m3"] = await self.say("m3")
        found = {"left": await self.seen(self.bob, sent)}
        await self.bob.join(self.room_id)
        await erin.join(self.room_id)
        sent["m4"] = await self.say("m4")
        found["rejoined"] = await self.seen(self.bob, sent)
        found["joined later"] = await self.seen(erin, sent)
        found["invited"] = await self.seen(dave, sent)
        found["never there"] = await self.seen(carol, sent)
        found["always there"] = await self.seen(self.alice, sent)
        return found

    async def test_joined(self) -> None:
        """Shows HV-1, HV-3."""
        self.assertEqual(
            await self.readers("joined"),
            {
                "left": {"m2"},
                "rejoined": {"m2", "m4"},
                "joined later": {"m4"},
                "invited": set(),
                "never there": set(),
                "always there": self.EVERYTHING,
            },
        )

    async def test_invited(self) -> None:
        """Shows HV-1, HV-3."""
        self.assertEqual(
            await self.readers("invited"),
            {
                "left": {"m1", "m2"},
                "rejoined": {"m1", "m2", "m4"},
                "joined later": {"m4"},
                "invited": {"m1", "m2", "m3", "m4"},
                "never there": set(),
                "always there": self.EVERYTHING,
            },
        )

    async def test_shared(self) -> None:
        """Shows HV-1, HV-3."""
        self.assertEqual(
            await self.readers("shared"),
            {
                "left": {"m0", "m1", "m2"},
                "rejoined": self.EVERYTHING,
                "joined later": self.EVERYTHING,
                "invited": set(),
                "never there": set(),
                "always there": self.EVERYTHING,
            },
        )

    async def test_world_readable(self) -> None:
        """Shows HV-1, HV-3."""
        self.assertEqual(
            await self.readers("world_readable"),
            {
                # Nothing that came after the leave, although others may read it.
                "left": {"m0", "m1", "m2"},
                "rejoined": self.EVERYTHING,
                "joined later": self.EVERYTHING,
                "invited": self.EVERYTHING,
                "never there": self.EVERYTHING,
                "always there": self.EVERYTHING,
            },
        )

    async def test_the_default_is_shared(self) -> None:
        """Shows HV-2."""
        for value in ("nonsense", 5, None, ["joined"]):
            await self.start_with(value)
            sent = {"m0": await self.say("m0")}
            carol = await self.server.register("carol")
            self.assertEqual(await self.seen(carol, sent), set())
            await carol.join(self.room_id)
            self.assertEqual(await self.seen(carol, sent), {"m0"}, value)


class ChangesTest(VisibilityCase):
    async def change(self, value: str) -> str:
        content = {"history_visibility": value}
        return await self.alice.set_state(self.room_id, "m.room.history_visibility", content)

    async def test_the_visibility_at_the_event_decides(self) -> None:
        """Shows HV-1."""
        await self.start_with("joined")
        sent = {"joined": await self.say("joined")}
        for value in ("world_readable", "shared", "invited"):
            await self.change(value)
            sent[value] = await self.say(value)
        await self.change("joined")
        sent["again"] = await self.say("again")
        # Nobody else may enter now, but what was open stays open.
        for name, event_id in sent.items():
            path = f"/rooms/{q(self.room_id)}/event/{q(event_id)}"
            status, _ = await self.bob.call("GET", path)
            self.assertEqual(status, 200 if name == "world_readable" else 404, name)
        await self.bob.join(self.room_id)
        self.assertEqual(await self.seen(self.bob, sent), {"world_readable", "shared"})

    async def test_changes_of_it_are_seen_from_either_side(self) -> None:
        """Shows HV-4."""
        await self.start_with("joined")
        changes = {
            "opened": await self.change("world_readable"),
            "closed": await self.change("invited"),
            "closed more": await self.change("joined"),
        }
        found = {}
        for name, event_id in changes.items():
            path = f"/rooms/{q(self.room_id)}/event/{q(event_id)}"
            found[name] = (await self.bob.call("GET", path)).status
        self.assertEqual(found, {"opened": 200, "closed": 200, "closed more": 404})

    async def test_own_memberships_are_seen_from_either_side(self) -> None:
        """Shows HV-4."""
        await self.start_with("joined")
        await self.alice.invite(self.room_id, self.bob.user_id)
        await self.bob.join(self.room_id)
        hidden = await self.say("between")
        self.assertIn(hidden, await self.ids(self.bob, dir="b"))
        await self.bob.leave(self.room_id)
        chunk = (await self.get(self.bob, "messages", dir="f", limit=50))["chunk"]
        own = [e["content"]["membership"] for e in chunk if e.get("state_key") == self.bob.user_id]
        self.assertEqual(own, ["join", "leave"])
        # The memberships of others are no different from other events.
        carol = await self.server.register("carol")
        await carol.join(self.room_id)
        chunk = (await self.get(carol, "messages", dir="f", limit=50))["chunk"]
        members = {e["state_key"] for e in chunk if e["type"] == "m.room.member"}
        self.assertEqual(members, {self.alice.user_id, carol.user_id})

    async def test_everything_that_shows_events_heeds_it(self) -> None:
        """Shows HV-5."""
        await self.start_with("world_readable")
        root = await self.say("root")
        ts = (await self.event(self.alice, root))["origin_server_ts"]
        shown = await self.alice.send(self.room_id, self.reply(root, "shown"))
        shown_edit = await self.alice.send(self.room_id, self.edit(root, "shown"))
        await self.change("joined")
        for content in (self.reply(root, "s3cret"), self.edit(root, "s3cret")):
            await self.alice.send(self.room_id, content)
        relates = {"rel_type": "m.reference", "event_id": root}
        await self.alice.send(self.room_id, {"body": "s3cret", "m.relates_to": relates})
        topic = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "s3cret"})
        await self.change("world_readable")
        own = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "open"})
        for user in (self.bob, await self.guest()):
            bundled = (await self.event(user, root))["unsigned"]["m.relations"]
            self.assertEqual(bundled["m.thread"]["latest_event"]["event_id"], shown)
            self.assertEqual(bundled["m.thread"]["count"], 1)
            self.assertEqual(bundled["m.replace"]["event_id"], shown_edit)
            self.assertNotIn("m.reference", bundled)
            path = f"/_matrix/client/v1/rooms/{q(self.room_id)}/relations/{q(root)}"
            related = (await user.ok("GET", path))["chunk"]
            self.assertEqual({e["event_id"] for e in related}, {shown, shown_edit})
            # The state that a visible event replaced may itself be hidden.
            after = (await self.event(user, own))["unsigned"]
            self.assertEqual(after["replaces_state"], topic)
            self.assertNotIn("prev_content", after)
            for path in ("messages?dir=b&limit=100", f"context/{q(root)}?limit=100"):
                body = await user.ok("GET", f"/rooms/{q(self.room_id)}/{path}")
                self.assertNotIn("s3cret", str(body))
            hidden_ts = (await self.event(self.alice, topic))["origin_server_ts"]
            near = f"/_matrix/client/v1/rooms/{q(self.room_id)}/timestamp_to_event"
            found = await user.ok("GET", near, query={"ts": hidden_ts, "dir": "b"})
            self.assertNotEqual(found["event_id"], topic)
            self.assertGreaterEqual(found["origin_server_ts"], ts)

    @staticmethod
    def reply(root: str, body: str) -> dict[str, Any]:
        return {**TEXT, "body": body, "m.relates_to": {"rel_type": "m.thread", "event_id": root}}

    @staticmethod
    def edit(event_id: str, body: str) -> dict[str, Any]:
        return {
            **TEXT,
            "body": f"* {body}",
            "m.new_content": {**TEXT, "body": body},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        }

    async def guest(self) -> User:
        status, answer = await self.server.client.post("/_matrix/client/v3/register?kind=guest", {})
        self.assertEqual(status, 200, answer)
        return User(self.server, answer["user_id"], answer["access_token"], answer["device_id"])

    async def test_world_readable_rooms_are_open_to_everybody(self) -> None:
        """Shows HV-6."""
        await self.start_with("world_readable")
        event_id = await self.say("hello")
        for user in (self.bob, await self.guest()):
            self.assertIn(event_id, await self.ids(user, dir="b"))
            self.assertEqual(await self.get(user, "state/m.room.name"), {"name": "a room"})
            state = await self.get(user, "state")
            self.assertIn("m.room.create", [event["type"] for event in state])
            members = (await self.get(user, "members"))["chunk"]
            self.assertEqual([e["state_key"] for e in members], [self.alice.user_id])
            self.assertEqual((await self.event(user, event_id))["content"]["body"], "hello")
            await self.get(user, f"context/{q(event_id)}")
            # Who is there is for those who are there.
            answer = await user.call("GET", f"/rooms/{q(self.room_id)}/joined_members")
            self.assert_error(answer, 403, "M_FORBIDDEN")
        await self.change("shared")
        for user in (self.bob, await self.guest()):
            for path in ("messages?dir=b", "state", "state/m.room.name", "members"):
                answer = await user.call("GET", f"/rooms/{q(self.room_id)}/{path}")
                self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_without_a_token(self) -> None:
        """Shows HV-6."""
        await self.start_with("world_readable")
        answer = await self.server.client.get(
            f"/_matrix/client/v3/rooms/{q(self.room_id)}/messages?dir=b"
        )
        self.assert_error(answer, 401, "M_MISSING_TOKEN")


class ErasureTest(VisibilityCase):
    async def test_newcomers_see_erased_users_events_redacted(self) -> None:
        """Shows HV-7."""
        for value, strangers_look in (("shared", False), ("world_readable", True)):
            await self.start_with(value)
            await self.bob.join(self.room_id)
            event_id = await self.bob.send(self.room_id, "s3cret")
            other = await self.alice.send(self.room_id, "mine")
            carol, dave = [await self.server.register(name) for name in ("carol", "dave")]
            await carol.join(self.room_id)
            status, _ = await self.bob.call(
                "POST",
                "/account/deactivate",
                {
                    "erase": True,
                    "auth": {
                        "type": "m.login.password",
                        "identifier": {"type": "m.id.user", "user": self.bob.user_id},
                        "password": "wonderland",
                    },
                },
            )
            self.assertEqual(status, 200)
            await self.alice.send(self.room_id, "later")
            # Those who were there, or could look back before, still can.
            for user in (self.alice, carol):
                shown = await self.event(user, event_id)
                self.assertEqual(shown["content"].get("body"), "s3cret", (user.user_id, shown))
                self.assertIn("s3cret", str(await self.messages(user)))
            if not strangers_look:
                await dave.join(self.room_id)
            self.assertEqual((await self.event(dave, event_id))["content"], {})
            self.assertEqual((await self.event(dave, other))["content"]["body"], "mine")
            for path in ("messages?dir=b&limit=50", f"context/{q(other)}?limit=50"):
                body = await self.get(dave, path)
                self.assertNotIn("s3cret", str(body))
                self.assertIn(event_id, str(body))

    async def test_closing_an_account_is_not_erasing_it(self) -> None:
        """Shows HV-7."""
        await self.start_with("shared")
        await self.bob.join(self.room_id)
        event_id = await self.bob.send(self.room_id, "text")
        status, _ = await self.bob.call(
            "POST",
            "/account/deactivate",
            {
                "auth": {
                    "type": "m.login.password",
                    "identifier": {"type": "m.id.user", "user": self.bob.user_id},
                    "password": "wonderland",
                },
            },
        )
        self.assertEqual(status, 200)
        carol = await self.server.register("carol")
        await carol.join(self.room_id)
        self.assertEqual((await self.event(carol, event_id))["content"]["body"], "text")
