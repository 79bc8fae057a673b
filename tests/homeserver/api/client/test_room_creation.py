"""POST /createRoom."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from homeserver.core.room_versions import ROOM_VERSIONS
from tests.support.room_state import content_of, count_of_rooms, log_of, state_of
from tests.support.server import TestServer, User, make_server


class CreationCase(TestCase):
    server: TestServer
    alice: User
    bob: User

    async def set_up(self, **settings: Any) -> None:
        self.server = await make_server(self, **settings)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def refused(self, body: Any, status: int, errcode: str) -> None:
        """The request fails so, and no room is left behind."""
        before = await count_of_rooms(self.server)
        answer = await self.alice.call("POST", "/createRoom", body)
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode), body)
        self.assertEqual(await count_of_rooms(self.server), before)


class OrderTest(CreationCase):
    async def test_events_come_in_the_specified_order(self) -> None:
        """Shows ROOM-1."""
        await self.set_up()
        room_id = await self.alice.create_room(
            preset="public_chat",
            room_alias_name="tea",
            initial_state=[
                {"type": "org.example.b", "content": {"n": 1}},
                {"type": "org.example.a", "state_key": "x", "content": {"n": 2}},
            ],
            name="Tea",
            topic="Leaves",
            invite=[self.bob.user_id],
        )
        log = await log_of(self.server, room_id)
        self.assertEqual(
            [(event.type, event.state_key) for event in log],
            [
                ("m.room.create", ""),
                ("m.room.member", self.alice.user_id),
                ("m.room.power_levels", ""),
                ("m.room.canonical_alias", ""),
                ("m.room.join_rules", ""),
                ("m.room.history_visibility", ""),
                ("m.room.guest_access", ""),
                ("org.example.b", ""),
                ("org.example.a", "x"),
                ("m.room.name", ""),
                ("m.room.topic", ""),
                ("m.room.member", self.bob.user_id),
            ],
        )
        self.assertEqual({event.sender for event in log}, {self.alice.user_id})

    async def test_every_version_can_be_created_and_used(self) -> None:
        await self.set_up()
        for version in ROOM_VERSIONS:
            room_id = await self.alice.create_room(room_version=version, preset="public_chat")
            create = await content_of(self.server, room_id, "m.room.create")
            assert create is not None
            self.assertEqual(create["room_version"], version)
            self.assertEqual(
                create.get("creator"),
                None if ROOM_VERSIONS[version].implicit_room_creator else self.alice.user_id,
            )
            await self.bob.join(room_id)
            await self.bob.send(room_id, "hello")

    async def test_without_a_version_the_configured_one_is_used(self) -> None:
        await self.set_up(default_room_version="9")
        room_id = await self.alice.create_room()
        create = await content_of(self.server, room_id, "m.room.create")
        self.assertEqual(create, {"room_version": "9", "creator": self.alice.user_id})


class PresetTest(CreationCase):
    async def settings(self, **body: Any) -> tuple[Any, Any, Any]:
        state = await state_of(self.server, await self.alice.create_room(**body))
        return (
            state[("m.room.join_rules", "")]["join_rule"],
            state[("m.room.history_visibility", "")]["history_visibility"],
            state[("m.room.guest_access", "")]["guest_access"],
        )

    async def test_presets_and_visibility_choose_settings(self) -> None:
        """Shows ROOM-2."""
        await self.set_up()
        private, public = ("invite", "shared", "can_join"), ("public", "shared", "forbidden")
        self.assertEqual(await self.settings(), private)
        self.assertEqual(await self.settings(preset="private_chat"), private)
        self.assertEqual(await self.settings(preset="trusted_private_chat"), private)
        self.assertEqual(await self.settings(preset="public_chat"), public)
        self.assertEqual(await self.settings(visibility="public"), public)
        self.assertEqual(await self.settings(visibility="private"), private)
        self.assertEqual(await self.settings(visibility="public", preset="private_chat"), private)

    async def test_initial_state_beats_the_preset_and_loses_to_name_and_topic(self) -> None:
        """Shows ROOM-2."""
        await self.set_up()
        room_id = await self.alice.create_room(
            preset="private_chat",
            name="Name",
            topic="Topic",
            initial_state=[
                {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
                {"type": "m.room.name", "content": {"name": "other"}},
                {"type": "m.room.topic", "content": {"topic": "other"}},
            ],
        )
        state = await state_of(self.server, room_id)
        self.assertEqual(state[("m.room.join_rules", "")], {"join_rule": "knock"})
        self.assertEqual(state[("m.room.name", "")], {"name": "Name"})
        self.assertEqual(state[("m.room.topic", "")]["topic"], "Topic")

    async def test_trusted_invitees_have_the_creators_level(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(
            preset="trusted_private_chat", room_version="11", invite=[self.bob.user_id]
        )
        levels = await content_of(self.server, room_id, "m.room.power_levels")
        assert levels is not None
        self.assertEqual(levels["users"], {self.alice.user_id: 100, self.bob.user_id: 100})


class ContentTest(CreationCase):
    async def test_the_topic_has_its_rich_form_too(self) -> None:
        """Shows ROOM-3."""
        await self.set_up()
        room_id = await self.alice.create_room(topic="Leaves & water")
        self.assertEqual(
            await content_of(self.server, room_id, "m.room.topic"),
            {
                "topic": "Leaves & water",
                "m.topic": {"m.text": [{"body": "Leaves & water", "mimetype": "text/plain"}]},
            },
        )

    async def test_creation_content_cannot_set_version_and_creator(self) -> None:
        """Shows ROOM-3."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="10",
            creation_content={
                "room_version": "1",
                "creator": self.bob.user_id,
                "m.federate": False,
                "type": "m.space",
            },
        )
        self.assertEqual(
            await content_of(self.server, room_id, "m.room.create"),
            {
                "room_version": "10",
                "creator": self.alice.user_id,
                "m.federate": False,
                "type": "m.space",
            },
        )

    async def test_unknown_versions_are_refused(self) -> None:
        """Shows ROOM-3."""
        await self.set_up()
        await self.refused({"room_version": "nope"}, 400, "M_UNSUPPORTED_ROOM_VERSION")
        await self.refused({"room_version": ""}, 400, "M_UNSUPPORTED_ROOM_VERSION")
        await self.refused({"room_version": 11}, 400, "M_BAD_JSON")

    async def test_direct_rooms_say_so_in_their_invites(self) -> None:
        """Shows ROOM-5."""
        await self.set_up()
        room_id = await self.alice.create_room(is_direct=True, invite=[self.bob.user_id])
        invite = await content_of(self.server, room_id, "m.room.member", self.bob.user_id)
        self.assertEqual(invite, {"membership": "invite", "is_direct": True})

    async def test_the_alias_leads_to_the_room(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(room_alias_name="tea")
        found = await self.bob.ok("GET", "/directory/room/%23tea%3Ahearth.test")
        self.assertEqual(found, {"room_id": room_id, "servers": ["hearth.test"]})
        self.assertEqual(
            await content_of(self.server, room_id, "m.room.canonical_alias"),
            {"alias": "#tea:hearth.test"},
        )
        await self.refused({"room_alias_name": "tea"}, 400, "M_ROOM_IN_USE")

    async def test_unknown_local_users_can_be_invited_and_oneself_cannot(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(invite=["@nobody:hearth.test"])
        invite = await content_of(self.server, room_id, "m.room.member", "@nobody:hearth.test")
        self.assertEqual(invite, {"membership": "invite"})
        await self.refused({"invite": [self.alice.user_id]}, 403, "M_FORBIDDEN")

    async def test_initial_power_levels_take_the_place_of_the_default_ones(self) -> None:
        await self.set_up()
        levels = {"users": {self.alice.user_id: 100, self.bob.user_id: 200}}
        room_id = await self.alice.create_room(
            room_version="11",
            initial_state=[{"type": "m.room.power_levels", "content": levels}],
        )
        log = await log_of(self.server, room_id)
        sent = [event.content for event in log if event.type == "m.room.power_levels"]
        self.assertEqual(sent, [levels])


class Version12Test(CreationCase):
    async def test_creators_stand_outside_the_power_levels(self) -> None:
        """Shows ROOM-4."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="12",
            preset="trusted_private_chat",
            invite=[self.bob.user_id],
            creation_content={"additional_creators": ["@carol:elsewhere.test"]},
        )
        create = await content_of(self.server, room_id, "m.room.create")
        self.assertEqual(
            create,
            {
                "room_version": "12",
                "additional_creators": ["@carol:elsewhere.test", self.bob.user_id],
            },
        )
        levels = await content_of(self.server, room_id, "m.room.power_levels")
        assert levels is not None
        self.assertEqual(levels["users"], {})
        self.assertEqual(levels["events"]["m.room.tombstone"], 150)

    async def test_invitees_of_other_presets_are_no_creators(self) -> None:
        """Shows ROOM-4."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="12", preset="private_chat", invite=[self.bob.user_id]
        )
        create = await content_of(self.server, room_id, "m.room.create")
        self.assertEqual(create, {"room_version": "12"})

    async def test_the_tombstone_level_survives_an_override_of_events(self) -> None:
        """Shows ROOM-4."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="12",
            power_level_content_override={"events": {"m.room.name": 10}, "state_default": 160},
        )
        levels = await content_of(self.server, room_id, "m.room.power_levels")
        assert levels is not None
        self.assertEqual(levels["events"], {"m.room.name": 10, "m.room.tombstone": 161})

    async def test_creators_cannot_be_listed(self) -> None:
        """Shows AUTH-15, ROOM-5."""
        await self.set_up()
        listed = {"users": {self.alice.user_id: 100}}
        await self.refused(
            {"room_version": "12", "power_level_content_override": listed},
            400,
            "M_INVALID_PARAM",
        )
        await self.refused(
            {
                "room_version": "12",
                "creation_content": {"additional_creators": [self.bob.user_id]},
                "power_level_content_override": {"users": {self.bob.user_id: 50}},
            },
            400,
            "M_INVALID_PARAM",
        )
        room_id = await self.alice.create_room(room_version="12")
        answer = await self.alice.call("PUT", f"/rooms/{room_id}/state/m.room.power_levels", listed)
        self.assertEqual(answer.status, 400)

    async def test_additional_creators_must_be_user_ids(self) -> None:
        """Shows AUTH-15."""
        await self.set_up()
        wrong: list[Any] = ["@bob:hearth.test", [1], ["bob"], ["@bob"], [None], {}, [["@b:x.y"]]]
        for bad in wrong:
            await self.refused(
                {"room_version": "12", "creation_content": {"additional_creators": bad}},
                400,
                "M_INVALID_PARAM",
            )

    async def test_creators_rank_above_every_number(self) -> None:
        """Shows AUTH-15."""
        await self.set_up()
        room_id = await self.alice.create_room(
            room_version="12",
            preset="public_chat",
            power_level_content_override={"users": {self.bob.user_id: 2**53 - 1}},
        )
        await self.bob.join(room_id)
        answer = await self.bob.call(
            "POST", f"/rooms/{room_id}/kick", {"user_id": self.alice.user_id}
        )
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await self.alice.ok("POST", f"/rooms/{room_id}/kick", {"user_id": self.bob.user_id})

    async def test_rooms_alike_made_at_once_are_different_rooms(self) -> None:
        """The ID of a room is the hash of its first event, and so many are made in a millisecond
        that their first events would be the same."""
        await self.set_up()
        made = [Deferred.fromCoroutine(self.alice.create_room(name=str(n))) for n in range(12)]
        room_ids = await gatherResults(made)
        self.assertEqual(len(set(room_ids)), 12)
        for number, room_id in enumerate(room_ids):
            name = await content_of(self.server, room_id, "m.room.name")
            self.assertEqual(name, {"name": str(number)})

    async def test_room_ids_need_no_domain(self) -> None:
        """Shows ID-8."""
        await self.set_up()
        room_id = await self.alice.create_room(room_version="12", preset="public_chat")
        self.assertTrue(room_id.startswith("!"))
        self.assertNotIn(":", room_id)
        self.assertEqual(len(room_id), 44)
        await self.bob.join(room_id)
        await self.bob.send(room_id, "hello")
        await self.alice.set_state(room_id, "m.room.name", {"name": "Tea"})
        await self.alice.ok("PUT", "/directory/room/%23v12%3Ahearth.test", {"room_id": room_id})
        await self.alice.ok("PUT", f"/directory/list/room/{room_id}", {"visibility": "public"})
        summary = await self.bob.ok("GET", "/_matrix/client/v1/room_summary/%23v12:hearth.test")
        self.assertEqual((summary["room_id"], summary["name"]), (room_id, "Tea"))
        self.assertEqual(await self.bob.ok("GET", "/joined_rooms"), {"joined_rooms": [room_id]})
        await self.bob.leave(room_id)


class RefusalTest(CreationCase):
    async def test_a_failing_power_override_leaves_no_room(self) -> None:
        """Shows ROOM-5."""
        await self.set_up()
        for version in ("1", "6", "11"):
            await self.refused(
                {
                    "room_version": version,
                    "name": "Tea",
                    "power_level_content_override": {"users": {self.alice.user_id: 0}},
                },
                400,
                "M_INVALID_ROOM_STATE",
            )
        wrong: list[Any] = [
            {"users": []},
            {"users": {"@a:b.c": "50"}},
            {"ban": None},
            {"events": 1},
        ]
        for bad in wrong:
            await self.refused({"power_level_content_override": bad}, 400, "M_BAD_JSON")
        await self.refused(
            {"power_level_content_override": {"users": {"bob": 50}}}, 400, "M_INVALID_PARAM"
        )

    async def test_an_alias_of_a_room_that_failed_stays_free(self) -> None:
        await self.set_up()
        await self.refused(
            {
                "room_alias_name": "tea",
                "name": "Tea",
                "room_version": "11",
                "power_level_content_override": {"users": {self.alice.user_id: 0}},
            },
            400,
            "M_INVALID_ROOM_STATE",
        )
        await self.alice.create_room(room_alias_name="tea")

    async def test_bad_bodies(self) -> None:
        await self.set_up()
        for body, errcode in (
            ([], "M_BAD_JSON"),
            ({"visibility": "secret"}, "M_INVALID_PARAM"),
            ({"visibility": 1}, "M_BAD_JSON"),
            ({"preset": "loud_chat"}, "M_INVALID_PARAM"),
            ({"name": 1}, "M_BAD_JSON"),
            ({"name": {"a": 1}}, "M_BAD_JSON"),
            ({"topic": []}, "M_BAD_JSON"),
            ({"invite": "@bob:hearth.test"}, "M_BAD_JSON"),
            ({"invite": ["bob"]}, "M_INVALID_PARAM"),
            ({"invite": [1]}, "M_BAD_JSON"),
            ({"invite": [f"@u{n}:hearth.test" for n in range(101)]}, "M_INVALID_PARAM"),
            ({"invite_3pid": [{"medium": "email"}]}, "M_INVALID_PARAM"),
            ({"room_alias_name": ""}, "M_INVALID_PARAM"),
            ({"room_alias_name": "a:b"}, "M_INVALID_PARAM"),
            ({"room_alias_name": "a" * 300}, "M_INVALID_PARAM"),
            ({"room_alias_name": 7}, "M_BAD_JSON"),
            ({"creation_content": []}, "M_BAD_JSON"),
            ({"creation_content": {"n": 1.5}}, "M_BAD_JSON"),
            ({"initial_state": [{"content": {}}]}, "M_MISSING_PARAM"),
            ({"initial_state": [{"type": "a"}]}, "M_MISSING_PARAM"),
            ({"initial_state": [{"type": "a", "content": []}]}, "M_BAD_JSON"),
            ({"initial_state": {}}, "M_BAD_JSON"),
            ({"initial_state": [{"type": "a\0", "content": {}}]}, "M_INVALID_PARAM"),
            (
                {"initial_state": [{"type": "a", "state_key": "\0", "content": {}}]},
                "M_INVALID_PARAM",
            ),
            ({"initial_state": [{"type": "m.room.create", "content": {}}]}, "M_INVALID_PARAM"),
            (
                {
                    "initial_state": [
                        {"type": "m.room.member", "state_key": "@x:y.test", "content": {}}
                    ]
                },
                "M_INVALID_PARAM",
            ),
            ({"power_level_content_override": 1}, "M_BAD_JSON"),
        ):
            await self.refused(body, 400, errcode)
        answer = await self.alice.call("POST", "/createRoom", body=b"{")
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_NOT_JSON"))

    async def test_too_large_contents(self) -> None:
        await self.set_up()
        await self.refused({"name": "n" * 70_000}, 413, "M_TOO_LARGE")
        state = [{"type": "t" * 300, "content": {}}]
        await self.refused({"initial_state": state}, 413, "M_TOO_LARGE")

    async def test_publishing_may_be_kept_to_administrators(self) -> None:
        await self.set_up(public_rooms={"publication": "nobody"})
        await self.refused({"visibility": "public"}, 403, "M_FORBIDDEN")
        await self.alice.create_room(visibility="private", preset="public_chat")

    async def test_guests_create_no_rooms(self) -> None:
        await self.set_up()
        _, guest = await self.server.client.post(
            "/_matrix/client/v3/register", {}, query={"kind": "guest"}
        )
        answer = await self.server.client.with_token(guest["access_token"]).post(
            "/_matrix/client/v3/createRoom", {}
        )
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_GUEST_ACCESS_FORBIDDEN"))
