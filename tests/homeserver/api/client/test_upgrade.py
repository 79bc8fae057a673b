"""POST /rooms/{room_id}/upgrade."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.rooms.carry_over import CarryOver
from tests.support.room_state import content_of, count_of_rooms, log_of, state_of
from tests.support.server import TestServer, User, make_server

POWER = "m.room.power_levels"


class UpgradeCase(TestCase):
    server: TestServer
    alice: User
    bob: User

    async def set_up(self) -> None:
        self.server = await make_server(self)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def upgrade(
        self, room_id: str, version: str, user: User | None = None, **body: Any
    ) -> str:
        answer = await (user or self.alice).ok(
            "POST", f"/rooms/{room_id}/upgrade", {"new_version": version, **body}
        )
        new_room_id: str = answer["replacement_room"]
        return new_room_id

    async def content(self, room_id: str, event_type: str) -> dict[str, Any]:
        found = await content_of(self.server, room_id, event_type)
        assert found is not None, event_type
        return found


class UpgradeTest(UpgradeCase):
    async def test_the_state_goes_over(self) -> None:
        """Shows ROOM-18."""
        await self.set_up()
        copied = {
            "m.room.server_acl": {"allow": ["*"], "deny": ["bad.test"]},
            "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
            "m.room.name": {"name": "Tea"},
            "m.room.avatar": {"url": "mxc://hearth.test/a"},
            "m.room.topic": {"topic": "Leaves"},
            "m.room.guest_access": {"guest_access": "forbidden"},
            "m.room.history_visibility": {"history_visibility": "joined"},
            "m.room.join_rules": {"join_rule": "knock"},
        }
        old = await self.alice.create_room(
            room_version="10",
            creation_content={"m.federate": False, "type": "org.example.kind"},
            initial_state=[
                {"type": event_type, "content": content} for event_type, content in copied.items()
            ],
        )
        await self.alice.set_state(old, "org.example.other", {"stays": True})
        levels = await self.content(old, POWER)
        new = await self.upgrade(old, "11")
        state = await state_of(self.server, new)
        for event_type, content in copied.items():
            self.assertEqual(state[(event_type, "")], content)
        self.assertNotIn(("org.example.other", ""), state)
        (tombstone,) = [
            event for event in await log_of(self.server, old) if event.type == "m.room.tombstone"
        ]
        self.assertEqual(tombstone.content["replacement_room"], new)
        create = state[("m.room.create", "")]
        self.assertEqual(create["predecessor"]["room_id"], old)
        self.assertEqual(
            create["predecessor"]["event_id"], await self.event_id(old, "m.room.tombstone")
        )
        self.assertEqual(
            {key: create[key] for key in ("room_version", "type", "m.federate")},
            {"room_version": "11", "type": "org.example.kind", "m.federate": False},
        )
        self.assertEqual(
            {key: state[(POWER, "")][key] for key in ("users", "events", "ban", "invite")},
            {key: levels[key] for key in ("users", "events", "ban", "invite")},
        )

    async def event_id(self, room_id: str, event_type: str) -> str:
        found: str = await self.server.homeserver.db.read(
            lambda txn: txn.value(
                "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid"
                " WHERE r.room_id = ? AND e.type = ?",
                (room_id, event_type),
            )
        )
        return found

    async def test_bans_go_over(self) -> None:
        """Shows ROOM-18."""
        await self.set_up()
        old = await self.alice.create_room(room_version="10", preset="public_chat", name="Tea")
        await self.alice.set_state(
            old,
            POWER,
            {
                "users": {self.alice.user_id: 60},
                "events": {"m.room.tombstone": 60},
                "ban": 50,
                "state_default": 70,
            },
        )
        body = {"user_id": self.bob.user_id, "reason": "spam"}
        await self.alice.ok("POST", f"/rooms/{old}/ban", body)
        new = await self.upgrade(old, "11")
        self.assertEqual(
            await content_of(self.server, new, "m.room.member", self.bob.user_id),
            {"membership": "ban", "reason": "spam"},
        )
        # The higher level that copying took is gone.
        self.assertEqual((await self.content(new, POWER))["users"], {self.alice.user_id: 60})
        self.assertEqual((await self.bob.call("POST", f"/join/{new}", {})).status, 403)

    async def test_aliases_and_the_directory_entry_move(self) -> None:
        """Shows ROOM-18."""
        await self.set_up()
        old = await self.alice.create_room(
            room_version="10", visibility="public", room_alias_name="tea", name="Tea"
        )
        other = "#other:hearth.test"
        await self.alice.ok("PUT", "/directory/room/%23other%3Ahearth.test", {"room_id": old})
        names = {"alias": "#tea:hearth.test", "alt_aliases": [other]}
        await self.alice.set_state(old, "m.room.canonical_alias", names)
        new = await self.upgrade(old, "11")
        for alias in ("tea", "other"):
            found = await self.bob.ok("GET", f"/directory/room/%23{alias}%3Ahearth.test")
            self.assertEqual(found["room_id"], new)
        self.assertEqual(await self.content(new, "m.room.canonical_alias"), names)
        self.assertEqual(await self.content(old, "m.room.canonical_alias"), {})
        listed = (await self.bob.ok("GET", "/publicRooms"))["chunk"]
        self.assertEqual([room["room_id"] for room in listed], [new])

    async def test_the_old_room_is_muted(self) -> None:
        """Shows ROOM-18."""
        await self.set_up()
        old = await self.alice.create_room(room_version="11", preset="private_chat")
        await self.alice.invite(old, self.bob.user_id)
        await self.bob.join(old)
        await self.bob.send(old, "before")
        await self.upgrade(old, "11")
        path = f"/rooms/{old}/send/m.room.message/t9"
        answer = await self.bob.call("PUT", path, {"body": "after", "msgtype": "m.text"})
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        answer = await self.bob.call("POST", f"/rooms/{old}/invite", {"user_id": "@x:hearth.test"})
        self.assertEqual(answer.status, 403)
        levels = await self.content(old, POWER)
        self.assertEqual((levels["events_default"], levels["invite"]), (50, 50))

    async def test_it_needs_the_right_to_send_a_tombstone(self) -> None:
        """Shows ROOM-18."""
        await self.set_up()
        old = await self.alice.create_room(
            room_version="11",
            preset="public_chat",
            room_alias_name="tea",
            power_level_content_override={"users": {self.alice.user_id: 100, self.bob.user_id: 99}},
        )
        before = await count_of_rooms(self.server)
        body = {"new_version": "11"}
        for _ in range(2):
            answer = await self.bob.call("POST", f"/rooms/{old}/upgrade", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
            await self.bob.join(old)
        answer = await self.bob.call("POST", "/rooms/!nowhere:hearth.test/upgrade", body)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual(await count_of_rooms(self.server), before)
        found = await self.bob.ok("GET", "/directory/room/%23tea%3Ahearth.test")
        self.assertEqual(found["room_id"], old)

    async def test_a_moderator_without_the_right_to_levels_may_upgrade(self) -> None:
        """Shows ROOM-18: the old room is muted where that is possible."""
        await self.set_up()
        levels = {
            "users": {self.alice.user_id: 100, self.bob.user_id: 50},
            "events": {"m.room.tombstone": 50, POWER: 100},
        }
        old = await self.alice.create_room(
            room_version="11", preset="public_chat", power_level_content_override=levels
        )
        await self.bob.join(old)
        new = await self.upgrade(old, "10", self.bob)
        self.assertEqual((await self.content(old, POWER))["events_default"], 0)
        found = await self.content(new, POWER)
        self.assertEqual({key: found[key] for key in levels}, levels)
        await self.alice.join(new)
        await self.alice.set_state(new, POWER, {"users": {self.alice.user_id: 100}})

    async def test_from_every_version_to_every_version(self) -> None:
        """Shows ROOM-18, ROOM-19."""
        await self.set_up()
        versions = [str(number) for number in range(1, 13)]
        room_id = await self.alice.create_room(room_version="12", preset="public_chat", name="Tea")
        for version in [*versions, "1", "12", "11"]:
            room_id = await self.upgrade(room_id, version)
            await self.alice.set_state(room_id, "m.room.topic", {"topic": version})
            await self.bob.join(room_id)
        state = await state_of(self.server, room_id)
        self.assertEqual(state[("m.room.name", "")], {"name": "Tea"})

    async def test_a_failure_leaves_everything_as_it_was(self) -> None:
        """Shows ROOM-18: events of version 1 are larger, and so one of them is too large."""
        await self.set_up()
        old = await self.alice.create_room(room_version="11", room_alias_name="tea")
        path = f"/rooms/{old}/state/m.room.topic"
        fits, too_large = 60_000, 70_000
        while too_large - fits > 1:
            size = (fits + too_large) // 2
            answer = await self.alice.call("PUT", path, {"topic": "t" * size})
            fits, too_large = (size, too_large) if answer.status == 200 else (fits, size)
        await self.alice.ok("PUT", path, {"topic": "t" * fits})
        before, log = await count_of_rooms(self.server), await log_of(self.server, old)
        answer = await self.alice.call("POST", f"/rooms/{old}/upgrade", {"new_version": "1"})
        self.assertEqual((answer.status, answer.body["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual(await count_of_rooms(self.server), before)
        self.assertEqual(await log_of(self.server, old), log)
        found = await self.bob.ok("GET", "/directory/room/%23tea%3Ahearth.test")
        self.assertEqual(found["room_id"], old)
        await self.alice.send(old, "still here")

    async def test_what_the_new_version_does_not_take_stays_behind(self) -> None:
        await self.set_up()
        old = await self.alice.create_room(room_version="10")
        await self.alice.set_state(old, "m.room.join_rules", {"join_rule": "knock_restricted"})
        new = await self.upgrade(old, "6")
        self.assertEqual(await self.content(new, "m.room.join_rules"), {"join_rule": "invite"})

    async def test_spaces_keep_their_children(self) -> None:
        await self.set_up()
        old = await self.alice.create_room(room_version="10", creation_content={"type": "m.space"})
        await self.alice.set_state(old, "m.space.child", {"via": ["a.test"]}, "!a:a.test")
        await self.alice.set_state(old, "m.space.child", {}, "!b:a.test")
        new = await self.upgrade(old, "11")
        children = {
            key[1]: content
            for key, content in (await state_of(self.server, new)).items()
            if key[0] == "m.space.child"
        }
        self.assertEqual(children, {"!a:a.test": {"via": ["a.test"]}})

    async def test_bad_requests(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room()
        before = await count_of_rooms(self.server)
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"new_version": 11}, "M_BAD_JSON"),
            ({"new_version": None}, "M_BAD_JSON"),
            ({"new_version": "nope"}, "M_UNSUPPORTED_ROOM_VERSION"),
            ({"new_version": "12", "additional_creators": "bob"}, "M_BAD_JSON"),
            ({"new_version": "12", "additional_creators": ["bob"]}, "M_INVALID_PARAM"),
            ([], "M_BAD_JSON"),
        ):
            answer = await self.alice.call("POST", f"/rooms/{room_id}/upgrade", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, errcode), body)
        answer = await self.alice.call("POST", "/rooms/tea/upgrade", {"new_version": "11"})
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        self.assertEqual(await count_of_rooms(self.server), before)


class IntoVersion12Test(UpgradeCase):
    async def test_the_upgrader_becomes_creator(self) -> None:
        """Shows ROOM-19."""
        await self.set_up()
        old = await self.alice.create_room(
            room_version="11",
            preset="public_chat",
            power_level_content_override={"users": {self.alice.user_id: 100, self.bob.user_id: 50}},
        )
        new = await self.upgrade(old, "12")
        create = await self.content(new, "m.room.create")
        self.assertEqual(create, {"room_version": "12", "predecessor": {"room_id": old}})
        levels = await self.content(new, POWER)
        self.assertEqual(levels["users"], {self.bob.user_id: 50})
        self.assertEqual(levels["events"]["m.room.tombstone"], 150)
        senders = {event.sender for event in await log_of(self.server, new)}
        self.assertEqual(senders, {self.alice.user_id})
        tombstone = await self.content(old, "m.room.tombstone")
        self.assertEqual(tombstone["replacement_room"], new)

    async def test_additional_creators_are_those_asked_for(self) -> None:
        """Shows ROOM-19."""
        await self.set_up()
        old = await self.alice.create_room(
            room_version="12", creation_content={"additional_creators": [self.bob.user_id]}
        )
        new = await self.upgrade(old, "12")
        create = await self.content(new, "m.room.create")
        self.assertNotIn("additional_creators", create)
        newer = await self.upgrade(new, "12", additional_creators=[self.bob.user_id])
        create = await self.content(newer, "m.room.create")
        self.assertEqual(create["additional_creators"], [self.bob.user_id])
        self.assertNotIn(self.bob.user_id, (await self.content(newer, POWER))["users"])

    async def test_versions_without_creators_ignore_them(self) -> None:
        """Shows ROOM-19."""
        await self.set_up()
        old = await self.alice.create_room(
            room_version="12", creation_content={"additional_creators": [self.bob.user_id]}
        )
        new = await self.upgrade(old, "11", additional_creators=["nonsense"])
        self.assertNotIn("additional_creators", await self.content(new, "m.room.create"))
        self.assertEqual(
            (await self.content(new, POWER))["users"],
            {self.alice.user_id: 150, self.bob.user_id: 150},
        )


class CarryOverTest(UpgradeCase):
    async def follow(self, user: User, room_id: str) -> None:
        await user.join(room_id)
        await self.server.homeserver.services[CarryOver].drained()

    async def data(self, user: User, path: str) -> Any:
        status, body = await user.call("GET", f"/user/{user.user_id}/{path}")
        return body if status == 200 else None

    async def prepared(self) -> str:
        """A room for which bob has set everything."""
        room_id = await self.alice.create_room(room_version="10", preset="public_chat")
        await self.bob.join(room_id)
        own = f"/user/{self.bob.user_id}"
        await self.bob.ok("PUT", f"{own}/rooms/{room_id}/tags/u.tea", {"order": 0.5})
        await self.bob.ok(
            "PUT",
            f"{own}/account_data/m.direct",
            {self.alice.user_id: [room_id], "@x:y.test": ["!other:y.test"], "odd": 1},
        )
        room_rule = quote(room_id, safe="")
        await self.bob.ok("PUT", f"/pushrules/global/room/{room_rule}", {"actions": []})
        condition = {"kind": "event_match", "key": "room_id", "pattern": room_id}
        await self.bob.ok(
            "PUT",
            f"/pushrules/global/override/{room_rule}",
            {"actions": [], "conditions": [condition]},
        )
        return room_id

    async def own_rules(self, kind: str) -> dict[str, Any]:
        rules = (await self.bob.ok("GET", "/pushrules/"))["global"][kind]
        return {rule["rule_id"]: rule for rule in rules if not rule["default"]}

    async def test_settings_follow_who_joins_the_new_room(self) -> None:
        """Shows ROOM-20."""
        await self.set_up()
        old = await self.prepared()
        new = await self.upgrade(old, "11")
        self.assertEqual((await self.data(self.bob, f"rooms/{new}/tags"))["tags"], {})
        await self.follow(self.bob, new)
        for room_id in (old, new):
            found = await self.data(self.bob, f"rooms/{room_id}/tags")
            self.assertEqual(found, {"tags": {"u.tea": {"order": 0.5}}})
        self.assertEqual(
            await self.data(self.bob, "account_data/m.direct"),
            {self.alice.user_id: [old, new], "@x:y.test": ["!other:y.test"], "odd": 1},
        )
        room_rules = await self.own_rules("room")
        self.assertEqual(set(room_rules), {old, new})
        self.assertEqual(room_rules[new], {**room_rules[old], "rule_id": new})
        overrides = await self.own_rules("override")
        self.assertEqual(set(overrides), {old, new})
        self.assertEqual(overrides[new]["conditions"][0]["pattern"], new)

    async def test_the_upgrader_keeps_settings_too(self) -> None:
        """Shows ROOM-20."""
        await self.set_up()
        old = await self.alice.create_room(room_version="10")
        tag = f"/user/{self.alice.user_id}/rooms/{old}/tags/m.favourite"
        await self.alice.ok("PUT", tag, {})
        new = await self.upgrade(old, "12")
        await self.server.homeserver.services[CarryOver].drained()
        found = await self.data(self.alice, f"rooms/{new}/tags")
        self.assertEqual(found, {"tags": {"m.favourite": {}}})

    async def test_a_room_that_only_claims_to_replace_another_gets_nothing(self) -> None:
        """Shows ROOM-20."""
        await self.set_up()
        old = await self.prepared()
        for predecessor in ({"room_id": old}, {"room_id": "\0"}, {"room_id": 1}, old, {}):
            claims = await self.alice.create_room(
                preset="public_chat", creation_content={"predecessor": predecessor}
            )
            await self.follow(self.bob, claims)
            self.assertEqual(await self.data(self.bob, f"rooms/{claims}/tags"), {"tags": {}})
        self.assertEqual(set(await self.own_rules("room")), {old})
