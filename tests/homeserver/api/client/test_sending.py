"""Sending events, state and redactions over the API."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms.send import Sending, transaction_for_redaction
from homeserver.web.request import Requester
from storage import aliases
from tests.support.room_case import TEXT, RoomTestCase, log_in, q
from tests.support.server import User, make_server


class TransactionTest(RoomTestCase):
    async def test_a_repetition_gets_the_first_answer(self) -> None:
        """Shows SND-1."""
        await self.start()
        event_id = await self.put_ok(self.alice, "send/m.room.message/t1")
        # What the body says does not matter.
        again = await self.put_ok(self.alice, "send/m.room.message/t1", {"body": "other"})
        self.assertEqual(again, event_id)
        events = [e for e in await self.messages(self.alice) if e["type"] == "m.room.message"]
        self.assertEqual([e["content"] for e in events], [TEXT])

    async def test_simultaneous_repetitions(self) -> None:
        """Shows SND-1."""
        await self.start()
        calls = [
            Deferred.fromCoroutine(self.put_ok(self.alice, "send/m.room.message/t1"))
            for _ in range(10)
        ]
        self.assertEqual(len(set(await gatherResults(calls))), 1)
        types = [e["type"] for e in await self.messages(self.alice)]
        self.assertEqual(types.count("m.room.message"), 1)

    async def test_another_path_device_user_or_room_is_another_request(self) -> None:
        """Shows SND-1."""
        await self.start()
        await self.bob.join(self.room_id)
        phone = await log_in(self.server, self.alice)
        ids = [
            await self.put_ok(self.alice, "send/m.room.message/t1"),
            await self.put_ok(self.alice, "send/other/t1"),
            await self.put_ok(self.alice, "send/m.room.message/t2"),
            await self.put_ok(phone, "send/m.room.message/t1"),
            await self.put_ok(self.bob, "send/m.room.message/t1"),
        ]
        ids.append(await self.put_ok(self.alice, f"redact/{q(ids[0])}/t1", {}))
        ids.append(await self.put_ok(self.alice, f"redact/{q(ids[1])}/t1", {}))
        self.room_id = await self.alice.create_room()
        ids.append(await self.put_ok(self.alice, "send/m.room.message/t1"))
        self.assertEqual(len(set(ids)), len(ids))

    async def test_redactions_are_repeated_alike(self) -> None:
        """Shows SND-1."""
        await self.start()
        event_id = await self.put_ok(self.alice, "send/m.room.message/t1")
        path = f"redact/{q(event_id)}/t2"
        redaction = await self.put_ok(self.alice, path, {})
        self.assertEqual(await self.put_ok(self.alice, path, {}), redaction)

    async def test_a_refreshed_token_is_the_same_device(self) -> None:
        """Shows SND-1, SND-2."""
        await self.start()
        status, answer = await self.server.client.post(
            "/_matrix/client/v3/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "alice"},
                "password": "wonderland",
                "refresh_token": True,
            },
        )
        self.assertEqual(status, 200)
        user = User(self.server, self.alice.user_id, answer["access_token"], answer["device_id"])
        event_id = await self.put_ok(user, "send/m.room.message/t1")
        status, answer = await self.server.client.post(
            "/_matrix/client/v3/refresh", {"refresh_token": answer["refresh_token"]}
        )
        self.assertEqual(status, 200)
        user = User(self.server, user.user_id, answer["access_token"], user.device_id)
        self.assertEqual(await self.put_ok(user, "send/m.room.message/t1"), event_id)
        shown = await self.event(user, event_id)
        self.assertEqual(shown["unsigned"]["transaction_id"], "t1")

    async def test_only_the_sending_device_is_told_the_transaction(self) -> None:
        """Shows SND-2, EVT-13."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.put_ok(self.alice, "send/m.room.message/t1")
        phone = await log_in(self.server, self.alice)
        same = await log_in(self.server, self.alice, self.alice.device_id)
        for user, told in ((same, True), (phone, False), (self.bob, False)):
            for shown in (
                await self.event(user, event_id),
                (await self.messages(user))[0],
                (await self.get(user, f"context/{q(event_id)}"))["event"],
            ):
                self.assertEqual(shown["event_id"], event_id)
                self.assertEqual(shown["unsigned"].get("transaction_id"), "t1" if told else None)

    async def test_a_transaction_id_of_more_than_255_bytes(self) -> None:
        await self.start()
        answer = await self.put(self.alice, f"send/m.room.message/{'t' * 256}")
        self.assert_error(answer, 400, "M_INVALID_PARAM")


class StateTest(RoomTestCase):
    async def test_the_same_state_again_makes_no_event(self) -> None:
        """Shows SND-3."""
        await self.start()
        count = len(await self.messages(self.alice))
        first = await self.put_ok(self.alice, "state/m.room.topic/", {"topic": "one"})
        for path in ("state/m.room.topic", "state/m.room.topic/"):
            self.assertEqual(await self.put_ok(self.alice, path, {"topic": "one"}), first)
        self.assertEqual(len(await self.messages(self.alice)), count + 1)
        self.assertNotEqual(
            await self.put_ok(self.alice, "state/m.room.topic", {"topic": "two"}), first
        )

    async def test_state_keys(self) -> None:
        await self.start()
        await self.put_ok(self.alice, "state/custom/a%2Fb", {"n": 1})
        await self.put_ok(self.alice, "state/custom", {"n": 2})
        self.assertEqual(await self.get(self.alice, "state/custom/a%2Fb"), {"n": 1})
        self.assertEqual(await self.get(self.alice, "state/custom/"), {"n": 2})

    async def test_canonical_aliases_must_be_well_formed(self) -> None:
        """Shows SND-4."""
        await self.start()
        for content in (
            {"alias": "#no-domain"},
            {"alias": "nonsense"},
            {"alt_aliases": ["@user:hearth.test"]},
            {"alias": 5},
            {"alt_aliases": "#a:hearth.test"},
            {"alt_aliases": [5]},
        ):
            answer = await self.put(self.alice, "state/m.room.canonical_alias", content)
            self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_canonical_aliases_must_point_to_the_room(self) -> None:
        """Shows SND-4."""
        await self.start(room_alias_name="here")
        await self.alice.create_room(room_alias_name="elsewhere")
        path = "state/m.room.canonical_alias"
        for alias in ("#elsewhere:hearth.test", "#nowhere:hearth.test"):
            for content in ({"alias": alias}, {"alt_aliases": [alias]}):
                self.assert_error(await self.put(self.alice, path, content), 400, "M_BAD_ALIAS")
        good = {"alias": "#here:hearth.test", "alt_aliases": ["#here:hearth.test"]}
        await self.put_ok(self.alice, path, good)
        await self.put_ok(self.alice, path, {"alias": ""})
        await self.put_ok(self.alice, path, {})

    async def test_old_canonical_aliases_are_not_checked(self) -> None:
        """Shows SND-4."""
        await self.start(room_alias_name="here")
        path = "state/m.room.canonical_alias"
        await self.put_ok(self.alice, path, {"alias": "#here:hearth.test"})
        db = self.server.homeserver.db
        self.assertTrue(await db.write(aliases.delete, "#here:hearth.test"))
        content = {"alias": "#here:hearth.test", "more": 1}
        await self.put_ok(self.alice, path, content)
        moved = {"alt_aliases": ["#here:hearth.test"]}
        await self.put_ok(self.alice, path, moved)

    async def test_member_events_are_changes_of_membership(self) -> None:
        """Shows SND-5."""
        await self.start()
        bob, alice = q(self.bob.user_id), q(self.alice.user_id)
        member = "state/m.room.member"
        # Nobody joins for others; nobody invites those who are there; kicks need the level.
        for user, path, content, status in (
            (self.alice, f"{member}/{bob}", {"membership": "join"}, 403),
            (self.bob, f"{member}/{bob}", {"membership": "join", "displayname": "B"}, 200),
            (self.alice, f"{member}/{bob}", {"membership": "invite"}, 403),
            (self.bob, f"{member}/{alice}", {"membership": "leave"}, 403),
            (self.bob, f"{member}/{alice}", {"membership": "ban"}, 403),
            (self.alice, f"{member}/{bob}", {"membership": "ban", "reason": "why"}, 200),
            (self.bob, f"{member}/{bob}", {"membership": "join"}, 403),
            (self.alice, f"{member}/{bob}", {"membership": "leave"}, 200),
            (self.alice, f"{member}/{bob}", {"membership": "nonsense"}, 400),
            (self.alice, f"{member}/{bob}", {}, 400),
            (self.alice, f"{member}/nonsense", {"membership": "leave"}, 400),
            (self.alice, member, {"membership": "leave"}, 400),
        ):
            answer = await self.put(user, path, content)
            self.assertEqual(answer.status, status, (path, content, answer.body))
        current = await self.get(self.alice, f"{member}/{bob}")
        self.assertEqual(current["membership"], "leave")

    async def test_a_join_by_state_may_name_no_authoriser(self) -> None:
        """Shows SND-5."""
        await self.start()
        content = {
            "membership": "join",
            "join_authorised_via_users_server": self.alice.user_id,
            "third_party_invite": {"display_name": "x"},
            "custom": 1,
        }
        await self.put_ok(self.bob, f"state/m.room.member/{q(self.bob.user_id)}", content)
        found = await self.get(self.bob, f"state/m.room.member/{q(self.bob.user_id)}")
        self.assertEqual(found["custom"], 1)
        self.assertNotIn("join_authorised_via_users_server", found)
        self.assertNotIn("third_party_invite", found)


class RedactionTest(RoomTestCase):
    async def test_both_ways_in_every_version(self) -> None:
        """Shows SND-6, EVT-16."""
        server = await make_server(self)
        self.alice = await server.register("alice")
        for name, version in ROOM_VERSIONS.items():
            self.room_id = await self.alice.create_room(room_version=name)
            for number, way in enumerate(("redact", "send")):
                with self.subTest(version=name, way=way):
                    event_id = await self.alice.send(self.room_id, "secret")
                    if way == "redact":
                        path = f"redact/{q(event_id)}/r{number}"
                        redaction = await self.put_ok(self.alice, path, {"reason": "why"})
                    else:
                        body = {"redacts": event_id, "reason": "why"}
                        path = f"send/m.room.redaction/r{number}"
                        redaction = await self.put_ok(self.alice, path, body)
                    self.assertEqual((await self.event(self.alice, event_id))["content"], {})
                    shown = await self.event(self.alice, redaction)
                    self.assertEqual(shown["redacts"], event_id)
                    content = {"reason": "why", "redacts": event_id}
                    self.assertEqual(shown["content"], content)
                    # In the room it is where the version wants it, and nowhere else.
                    services = server.homeserver
                    text = await services.db.read(
                        lambda txn, name: txn.value(
                            "SELECT json FROM events WHERE event_id = ?", (name,)
                        ),
                        redaction,
                    )
                    in_content = version.redacts_in_content
                    self.assertEqual('"content":{"reason":"why"}' in text, not in_content)
                    self.assertEqual('"reason":"why","redacts":' in text, in_content)

    async def test_what_may_not_be_redacted(self) -> None:
        """Shows SND-7, SND-8."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.alice.send(self.room_id)
        answer = await self.put(self.bob, f"redact/{q(event_id)}/t", {})
        self.assert_error(answer, 403, "M_FORBIDDEN")
        answer = await self.put(self.bob, "send/m.room.redaction/t", {"redacts": event_id})
        self.assert_error(answer, 403, "M_FORBIDDEN")
        elsewhere = await self.bob.create_room()
        self.room_id = elsewhere
        answer = await self.put(self.bob, f"redact/{q(event_id)}/t", {})
        self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_malformed_redactions(self) -> None:
        await self.start()
        answer = await self.put(self.alice, "send/m.room.redaction/t1", {})
        self.assert_error(answer, 400, "M_MISSING_PARAM")
        answer = await self.put(self.alice, "send/m.room.redaction/t2", {"redacts": "x"})
        self.assert_error(answer, 400, "M_INVALID_PARAM")
        answer = await self.put(self.alice, "redact/nonsense/t3", {})
        self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_redacted_content_is_shown_nowhere(self) -> None:
        """Shows SND-9."""
        await self.start()
        await self.bob.join(self.room_id)
        root = await self.alice.send(self.room_id, "root")
        child = await self.alice.send(
            self.room_id,
            {**TEXT, "body": "s3cret", "m.relates_to": {"rel_type": "m.thread", "event_id": root}},
        )
        topic = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "s3cret"})
        for event_id in (child, topic):
            await self.put_ok(self.alice, f"redact/{q(event_id)}/{event_id[1:9]}", {})
        for user in (self.alice, self.bob):
            for path in (
                "messages?dir=b&limit=100",
                "messages?dir=f&limit=100",
                f"event/{q(child)}",
                f"event/{q(topic)}",
                f"event/{q(root)}",
                f"context/{q(child)}",
                f"context/{q(root)}",
                "state",
                "state/m.room.topic",
                "state/m.room.topic?format=event",
            ):
                body = await user.ok("GET", f"/rooms/{q(self.room_id)}/{path}")
                self.assertNotIn("s3cret", str(body), path)
            relations = f"/_matrix/client/v1/rooms/{q(self.room_id)}/relations/{q(root)}"
            self.assertEqual((await user.ok("GET", relations))["chunk"], [])
        # Its place in the state is kept.
        self.assertEqual(await self.get(self.bob, "state/m.room.topic"), {})
        shown = await self.event(self.bob, child)
        self.assertEqual(shown["unsigned"]["redacted_because"]["redacts"], child)
        self.assertEqual(shown["unsigned"]["redacted_because"]["sender"], self.alice.user_id)


class RightsTest(RoomTestCase):
    async def test_outside_the_room_and_in_no_room(self) -> None:
        """Shows SND-12."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        for room_id in (self.room_id, "!unknown:hearth.test", "!unknown"):
            self.room_id = room_id
            for path, body in (
                ("send/m.room.message/t", TEXT),
                ("send/m.room.redaction/t", {"redacts": event_id}),
                ("state/m.room.topic", {"topic": "x"}),
                (f"redact/{q(event_id)}/t", {}),
            ):
                answer = await self.put(self.bob, path, body)
                self.assertEqual(answer.status, 403, (room_id, path, answer.body))

    async def test_mentions_of_nobody(self) -> None:
        """Users that cannot be, by the thousand or with U+0000 in their names."""
        await self.start()
        for names in (["@a\0b:hearth.test"], [f"@{n}:hearth.test" for n in range(2000)]):
            await self.alice.send(self.room_id, {**TEXT, "m.mentions": {"user_ids": names}})

    async def test_not_a_room(self) -> None:
        """Shows SND-12."""
        await self.start()
        self.room_id = "nonsense"
        answer = await self.put(self.alice, "send/m.room.message/t")
        self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_after_leaving(self) -> None:
        """Shows SND-12, AUTH-2."""
        await self.start()
        await self.bob.join(self.room_id)
        await self.bob.leave(self.room_id)
        answer = await self.put(self.bob, "send/m.room.message/t")
        self.assert_error(answer, 403, "M_FORBIDDEN")

    async def test_without_the_level(self) -> None:
        """Shows AUTH-2."""
        await self.start(power_level_content_override={"events_default": 10})
        await self.bob.join(self.room_id)
        for path in ("send/m.room.message/t", "state/custom", "state/m.room.topic"):
            self.assert_error(await self.put(self.bob, path, {}), 403, "M_FORBIDDEN")
        # Nothing of it is in the room.
        last = (await self.messages(self.alice))[0]
        self.assertEqual((last["type"], last["sender"]), ("m.room.member", self.bob.user_id))

    async def test_power_levels_are_integers(self) -> None:
        """Shows AUTH-14."""
        for version in ("1", "9", "10", "12"):
            await self.start(room_version=version)
            levels = await self.get(self.alice, "state/m.room.power_levels")
            for content in (
                {**levels, "ban": "50"},
                {**levels, "users": {**levels.get("users", {}), self.bob.user_id: "50"}},
                {**levels, "events": {"m.room.name": "50"}},
                {**levels, "notifications": {"room": "50"}},
                {**levels, "kick": 50.5},
                {**levels, "events": []},
            ):
                answer = await self.put(self.alice, "state/m.room.power_levels", content)
                self.assertEqual(answer.status, 400, (version, content, answer.body))
            await self.put_ok(self.alice, "state/m.room.power_levels", {**levels, "ban": 51})

    async def test_no_second_create_event(self) -> None:
        """Shows AUTH-20."""
        for version in ("1", "10", "11", "12"):
            await self.start(room_version=version)
            for path in ("state/m.room.create", "state/m.room.create/", "state/m.room.create/x"):
                answer = await self.put(self.alice, path, {"room_version": version})
                self.assert_error(answer, 403, "M_FORBIDDEN")
            types = [e["type"] for e in await self.messages(self.alice)]
            self.assertEqual(types.count("m.room.create"), 1)


class ContentTest(RoomTestCase):
    async def test_events_of_more_than_65536_bytes(self) -> None:
        """Shows EVT-9."""
        await self.start()
        for path in ("send/m.room.message/t1", "state/custom"):
            answer = await self.put(self.alice, path, {"body": "x" * 65_536})
            self.assert_error(answer, 413, "M_TOO_LARGE")
        await self.put_ok(self.alice, "send/m.room.message/t2", {"body": "x" * 60_000})
        # Bytes count, not characters.
        answer = await self.put(self.alice, "send/m.room.message/t3", {"body": "ä" * 40_000})
        self.assert_error(answer, 413, "M_TOO_LARGE")

    async def test_types_and_state_keys_of_more_than_255_bytes(self) -> None:
        """Shows EVT-9."""
        await self.start()
        long = q("ä" * 128)
        for path in (f"send/{long}/t1", f"state/{long}", f"state/custom/{long}"):
            self.assert_error(await self.put(self.alice, path, {}), 413, "M_TOO_LARGE")
        exact = q("ä" * 127 + "x")
        for path in (f"send/{exact}/t2", f"state/{exact}", f"state/custom/{exact}"):
            await self.put_ok(self.alice, path, {})

    async def test_content_must_be_canonical_json(self) -> None:
        await self.start()
        for number, body in enumerate((b'{"a": 1.5}', b'{"a": 9007199254740992}', b'{"a": 1e3}')):
            status, answer = await self.alice.call(
                "PUT", f"/rooms/{q(self.room_id)}/send/custom/t{number}", body=body
            )
            self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"), body)
        for number, body in enumerate((b"[]", b'"text"', b"5", b"null")):
            status, answer = await self.alice.call(
                "PUT", f"/rooms/{q(self.room_id)}/send/custom/u{number}", body=body
            )
            self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"), body)
        for number, body in enumerate((b"{", b"", b'{"a": NaN}', b'{"\xff": 1}')):
            status, answer = await self.alice.call(
                "PUT", f"/rooms/{q(self.room_id)}/send/custom/v{number}", body=body
            )
            self.assertEqual((status, answer["errcode"]), (400, "M_NOT_JSON"), body)

    async def test_old_versions_take_floats(self) -> None:
        await self.start(room_version="5")
        status, answer = await self.alice.call(
            "PUT", f"/rooms/{q(self.room_id)}/send/custom/t", body=b'{"a": 1.5}'
        )
        self.assertEqual(status, 200, answer)
        self.assertEqual((await self.event(self.alice, answer["event_id"]))["content"], {"a": 1.5})

    async def test_a_text_with_nul_comes_back(self) -> None:
        await self.start()
        event_id = await self.put_ok(self.alice, "send/custom/t", {"body": "a\x00b"})
        self.assertEqual((await self.event(self.alice, event_id))["content"], {"body": "a\x00b"})

    async def test_what_looks_like_an_event_is_content(self) -> None:
        """Shows EVT-13."""
        await self.start()
        content = {"unsigned": {"age": 1}, "event_id": "$x", "sender": self.bob.user_id}
        event_id = await self.put_ok(self.alice, "send/custom/t", content)
        shown = await self.event(self.alice, event_id)
        self.assertEqual(shown["content"], content)
        self.assertEqual(shown["sender"], self.alice.user_id)


class TimestampTest(RoomTestCase):
    async def test_application_services_choose_the_time(self) -> None:
        """Shows SND-10."""
        await self.start()
        sending = self.server.homeserver.services[Sending]
        room_id = RoomID(self.room_id)
        for requester, heeded in (
            (Requester(UserID(self.alice.user_id), "D", appservice_id="bridge"), True),
            (Requester(UserID(self.alice.user_id), "D"), False),
        ):
            name = str(heeded)
            sent = await sending.send_event(requester, room_id, "custom", {}, name, ts=1234)
            state = await sending.send_state(requester, room_id, "custom", name, {}, ts=1234)
            redaction = await sending.redact(
                requester,
                room_id,
                EventID(sent),
                {},
                transaction_for_redaction(requester, EventID(sent), name),
                ts=1234,
            )
            for event_id in (sent, state, redaction):
                shown = await self.event(self.alice, event_id)
                self.assertEqual(shown["origin_server_ts"] == 1234, heeded)

    async def test_others_cannot(self) -> None:
        """Shows SND-10."""
        await self.start()
        for path in ("send/custom/t?ts=1234", "state/custom?ts=1234"):
            event_id = await self.put_ok(self.alice, path, {})
            shown = await self.event(self.alice, event_id)
            self.assertNotEqual(shown["origin_server_ts"], 1234)
        for ts in ("-1", "x", "1.5"):
            answer = await self.put(self.alice, f"send/custom/u?ts={ts}", {})
            self.assert_error(answer, 400, "M_INVALID_PARAM")
