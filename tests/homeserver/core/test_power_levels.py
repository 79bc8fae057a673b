from __future__ import annotations

import math
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.errors import MatrixError
from homeserver.core.power_levels import (
    INFINITE,
    PowerLevels,
    can_redact,
    check_sent_power_levels,
    read_level,
    room_creators,
)
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from tests.support.events import ALICE, ALL_VERSIONS, BOB, CAROL, RoomBuilder
from tests.support.rules import RulesTestCase, raw_event

DAVE = "@dave:a.example"
MAX = 2**53 - 1
PRIVILEGED = [version for version in ALL_VERSIONS if int(version) >= 12]
LISTED = [version for version in ALL_VERSIONS if int(version) < 12]

# What a JSON value means as a power level: value, first and last version that read it, meaning.
LEVELS: list[tuple[Any, int, int, int]] = [
    (50, 1, 12, 50),
    (-3, 1, 12, -3),
    (MAX, 1, 12, MAX),
    (-MAX, 1, 12, -MAX),
    ("100", 1, 9, 100),
    ("000100", 1, 9, 100),
    ("+100", 1, 9, 100),
    ("-100", 1, 9, -100),
    (" 100 ", 1, 9, 100),
    ("\t +00100\n", 1, 9, 100),
    (50.57, 1, 5, 50),
    (-50.57, 1, 5, -50),
    (5.114698e4, 1, 5, 51146),
    (100.0, 1, 5, 100),
    (2**53, 1, 5, 2**53),
    (2**70, 1, 5, 2**70),
    (str(2**53), 1, 5, 2**53),
]
JUNK: list[Any] = [None, [], {}, "x", True]
NO_LEVELS: list[Any] = [
    None,
    True,
    False,
    [],
    [50],
    {},
    "",
    " ",
    "ten",
    "1.5",
    "1e3",
    "0x10",
    "1_000",
    "- 1",
    "--1",
    "\u0661",
    "9" * 5000,
    math.inf,
    -math.inf,
    math.nan,
    10**400,
]


class ReadLevelTest(TestCase):
    def test_which_versions_read_what(self) -> None:
        """Strings count below version 10, floats below 6. Shows AUTH-13."""
        for value, first, last, meaning in LEVELS:
            for identifier, version in ROOM_VERSIONS.items():
                wanted = meaning if first <= int(identifier) <= last else None
                self.assertEqual(read_level(value, version), wanted, (value, identifier))

    def test_what_is_no_level_in_any_version(self) -> None:
        for value in NO_LEVELS:
            for version in ROOM_VERSIONS.values():
                self.assertIsNone(read_level(value, version), (value, version.identifier))


class PowerLevelsTest(TestCase):
    def test_without_a_power_levels_event(self) -> None:
        """The creator has 100, infinite in version 12, others 0. Shows AUTH-6."""
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            power = PowerLevels.of(None, room.create)
            creator_level = INFINITE if version in PRIVILEGED else 100
            self.assertEqual(power.user_level(ALICE), creator_level)
            self.assertEqual(power.user_level(BOB), 0)
            self.assertEqual(power.event_level("m.room.name", True), 50)
            self.assertEqual(power.event_level("m.room.message", False), 0)
            self.assertEqual((power.invite, power.kick, power.ban, power.redact), (0, 50, 50, 50))
            self.assertEqual(power.notification(), 50)

    def test_an_empty_power_levels_event_leaves_no_creator(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            power = PowerLevels.of(room.power_levels(), room.create)
            self.assertEqual(
                power.user_level(ALICE), INFINITE if version in PRIVILEGED else 0, version
            )

    def test_levels_given(self) -> None:
        """Entries of `events` come first, then the defaults of the event. Shows AUTH-7."""
        content: JsonObject = {
            "users": {BOB: 30},
            "users_default": 5,
            "events": {"m.room.name": 70, "m.room.message": 20, "zero": 0},
            "state_default": 60,
            "events_default": 10,
            "invite": 1,
            "kick": 2,
            "ban": 3,
            "redact": 4,
            "notifications": {"room": 6, "other": 7},
        }
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            power = PowerLevels.of(room.power_levels(**content), room.create)
            self.assertEqual([power.user_level(user) for user in (BOB, CAROL)], [30, 5])
            self.assertEqual(power.event_level("m.room.name", True), 70)
            self.assertEqual(power.event_level("m.room.message", False), 20)
            self.assertEqual(power.event_level("m.room.message", True), 20)
            self.assertEqual(power.event_level("zero", True), 0)
            self.assertEqual(power.event_level("m.room.topic", True), 60)
            self.assertEqual(power.event_level("m.reaction", False), 10)
            self.assertEqual((power.invite, power.kick, power.ban, power.redact), (1, 2, 3, 4))
            self.assertEqual([power.notification(key) for key in ("room", "other")], [6, 7])
            self.assertEqual(power.notification("third"), 50)

    def test_defaults_beside_a_power_levels_event(self) -> None:
        """Shows AUTH-7."""
        room = RoomBuilder("11")
        power = PowerLevels.of(room.power_levels(users={BOB: 1}), room.create)
        self.assertEqual((power.invite, power.kick, power.ban, power.redact), (0, 50, 50, 50))
        self.assertEqual(power.event_level("m.room.topic", True), 50)
        self.assertEqual(power.event_level("m.reaction", False), 0)
        self.assertEqual(power.user_level(CAROL), 0)

    def test_unreadable_values_fall_back_to_defaults(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            for junk in JUNK:
                for content in (
                    {"users": junk, "events": junk, "notifications": junk, "ban": junk},
                    {"users": {BOB: junk}, "events": {"t": junk}, "state_default": junk},
                ):
                    event = raw_event(room, "m.room.power_levels", ALICE, dict(content), "")
                    power = PowerLevels.of(event, room.create)
                    self.assertEqual(power.user_level(BOB), 0)
                    self.assertEqual(power.event_level("t", True), 50)
                    self.assertEqual(power.ban, 50)
                    self.assertEqual(power.notification(), 50)

    def test_string_levels_are_used_as_numbers(self) -> None:
        """Shows AUTH-13."""
        content: JsonObject = {"users": {BOB: " +75 "}, "ban": "80", "events": {"t": "90"}}
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            power = PowerLevels.of(room.power_levels(**content), room.create)
            found = power.user_level(BOB), power.ban, power.event_level("t", True)
            self.assertEqual(found, (75, 80, 90) if int(version) < 10 else (0, 50, 50), version)

    def test_listed_users(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            power = PowerLevels.of(room.power_levels(users={BOB: 5, CAROL: None}), room.create)
            creators = {ALICE: INFINITE} if version in PRIVILEGED else {}
            self.assertEqual(power.listed_users(), {BOB: 5, **creators})


class CreatorsTest(TestCase):
    def test_who_is_creator(self) -> None:
        for version in ALL_VERSIONS:
            content: JsonObject = {"additional_creators": [BOB, 5, CAROL], "creator": DAVE}
            room = RoomBuilder(version, create_content=content)
            wanted = {ALICE}
            if int(version) <= 10:
                wanted = {DAVE}
            elif int(version) >= 12:
                wanted = {ALICE, BOB, CAROL}
            self.assertEqual(room_creators(room.create), wanted, version)

    def test_unreadable_creators_are_nobody(self) -> None:
        for junk in (value for value in [*JUNK, 1, [[]], {"@a:b": 1}] if value != "x"):
            old = RoomBuilder("1", create_content={"creator": junk})
            self.assertEqual(room_creators(old.create), frozenset())
            new = RoomBuilder("12", create_content={"additional_creators": junk})
            self.assertEqual(room_creators(new.create), {ALICE})

    def test_creators_stand_above_every_number(self) -> None:
        """Shows AUTH-15."""
        room = RoomBuilder("12", create_content={"additional_creators": [BOB]})
        power = PowerLevels.of(room.power_levels(users={CAROL: MAX, BOB: 0}), room.create)
        for creator in (ALICE, BOB):
            self.assertGreater(power.user_level(creator), power.user_level(CAROL))
        self.assertEqual(power.user_level(CAROL), MAX)


class ChangeTest(RulesTestCase):
    """Rule 10, by Bob, who has 50, in a room whose levels are `BASE`."""

    BASE: JsonObject = {
        "users": {BOB: 50, CAROL: 50, DAVE: 60, "@low:a.example": 10},
        "events": {"m.room.power_levels": 0, "high": 60, "equal": 50, "low": 10},
        "notifications": {"room": 60, "low": 10},
        "state_default": 10,
        "ban": 60,
        "kick": 50,
        "users_default": 1,
    }

    def room(self, version: str) -> RoomBuilder:
        room = RoomBuilder(version)
        room.join(ALICE)
        room.join_rules("public")
        for user in (BOB, CAROL, DAVE):
            room.join(user)
        base = dict(self.BASE)
        if version not in PRIVILEGED:
            base["users"] = {**base["users"], ALICE: 100}
        room.power_levels(**base)
        return room

    def changed(self, room: RoomBuilder, path: str, value: Any) -> JsonObject:
        """The levels of the room with one entry set, or removed (None)."""
        content: JsonObject = {
            key: dict(entry) if isinstance(entry, dict) else entry
            for key, entry in room.state["m.room.power_levels", ""].content.items()
        }
        group, _, key = path.partition("/")
        target = content.setdefault(group, {}) if key else content
        target.pop(key or group, None)
        if value is not None:
            target[key or group] = value
        return content

    # Entry, new value (None removes it), the rule that rejects it (None allows it).
    CHANGES: list[tuple[str, Any, str | None]] = [
        # 10.6: the levels directly in the content
        ("state_default", 50, None),
        ("state_default", 51, "10.6.2"),
        ("state_default", None, None),
        ("kick", 0, None),
        ("kick", None, None),
        ("kick", 51, "10.6.2"),
        ("ban", 50, "10.6.1"),
        ("ban", None, "10.6.1"),
        ("ban", 60, None),
        ("invite", 50, None),
        ("invite", 51, "10.6.2"),
        ("redact", 51, "10.6.2"),
        ("events_default", 51, "10.6.2"),
        ("users_default", 50, None),
        ("users_default", 51, "10.6.2"),
        ("users_default", -100, None),
        # 10.7, 10.8: levels of event types
        ("events/high", 50, "10.7.1"),
        ("events/high", None, "10.7.1"),
        ("events/high", 60, None),
        ("events/equal", 0, None),
        ("events/equal", None, None),
        ("events/low", 50, None),
        ("events/low", 51, "10.8.1"),
        ("events/new", 50, None),
        ("events/new", 51, "10.8.1"),
        # 10.9, 10.10: levels of users
        (f"users/{DAVE}", 50, "10.9.1"),
        (f"users/{DAVE}", None, "10.9.1"),
        (f"users/{DAVE}", 60, None),
        (f"users/{CAROL}", 49, "10.9.1"),
        (f"users/{CAROL}", None, "10.9.1"),
        (f"users/{CAROL}", 51, "10.9.1"),
        ("users/@low:a.example", 50, None),
        ("users/@low:a.example", 51, "10.10.1"),
        ("users/@low:a.example", None, None),
        ("users/@new:a.example", 50, None),
        ("users/@new:a.example", 51, "10.10.1"),
        (f"users/{BOB}", 49, None),
        (f"users/{BOB}", None, None),
        (f"users/{BOB}", 51, "10.10.1"),
    ]

    def test_changes(self) -> None:
        """Old and new values must be within reach, other users' strictly. Shows AUTH-11."""
        for version in ALL_VERSIONS:
            room = self.room(version)
            for path, value, rule in self.CHANGES:
                content = self.changed(room, path, value)
                event = room.event("m.room.power_levels", BOB, content, "", add=False)
                if rule is None:
                    self.assert_allowed(room, event, hint=f"{path} {value}")
                else:
                    self.assert_rejected(rule, room, event, hint=f"{path} {value}")

    def test_notifications(self) -> None:
        """Guarded like `events` from version 6. Shows AUTH-12."""
        changes: list[tuple[str, Any, str | None]] = [
            ("notifications/room", 50, "10.7.1"),
            ("notifications/room", None, "10.7.1"),
            ("notifications/room", 60, None),
            ("notifications/low", 50, None),
            ("notifications/low", 51, "10.8.1"),
            ("notifications/new", 50, None),
            ("notifications/new", 51, "10.8.1"),
        ]
        for version in ALL_VERSIONS:
            room = self.room(version)
            for path, value, rule in changes:
                content = self.changed(room, path, value)
                event = room.event("m.room.power_levels", BOB, content, "", add=False)
                if rule is None or int(version) < 6:
                    self.assert_allowed(room, event, hint=f"{path} {value}")
                else:
                    self.assert_rejected(rule, room, event, hint=f"{path} {value}")

    def test_a_change_of_notation_is_no_change(self) -> None:
        room = self.room("9")
        content = self.changed(room, f"users/{DAVE}", "060")
        self.assert_allowed(room, room.event("m.room.power_levels", BOB, content, "", add=False))

    def test_demotion_by_users_default(self) -> None:
        """Equals are demoted by lowering `users_default`, not by those below. Shows AUTH-11."""
        for version in LISTED:
            room = RoomBuilder.started(
                version,
                members=[BOB, CAROL],
                power={"users": {ALICE: 100, BOB: 50}, "users_default": 100},
            )
            lower = {"users": {ALICE: 100, BOB: 50}, "users_default": 40}
            event = room.event("m.room.power_levels", ALICE, lower, "", add=False)
            self.assert_allowed(room, event)
            event = room.event("m.room.power_levels", CAROL, lower, "", add=False)
            self.assert_allowed(room, event)
            event = room.event("m.room.power_levels", BOB, lower, "", add=False)
            self.assert_rejected("10.6.1", room, event)

    def test_first_power_levels_are_free(self) -> None:
        for version in LISTED:
            room = RoomBuilder(version)
            room.join(ALICE)
            content = {"users": {ALICE: 1000, BOB: 5000}, "ban": 7000}
            event = room.event("m.room.power_levels", ALICE, content, "", add=False)
            self.assert_allowed(room, event)

    def test_creators_reach_everything(self) -> None:
        """Shows AUTH-15."""
        room = RoomBuilder.started(
            "12",
            members=[BOB, CAROL],
            users={BOB: MAX},
            create_content={"additional_creators": [CAROL]},
        )
        for creator in (ALICE, CAROL):
            event = room.event("m.room.power_levels", creator, {"users": {}}, "", add=False)
            self.assert_allowed(room, event)

    def test_creators_may_not_be_listed(self) -> None:
        """From version 12 on. Shows AUTH-15."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, create_content={"additional_creators": [BOB]})
            for creator in (ALICE, BOB):
                users = {ALICE: 100} if version in LISTED else {}
                content = {"users": {**users, creator: 100}}
                event = room.event("m.room.power_levels", ALICE, content, "", add=False)
                if version in PRIVILEGED:
                    self.assert_rejected("10.4", room, event)
                else:
                    self.assert_allowed(room, event)


class ShapeTest(RulesTestCase):
    def check_first(self, version: str, content: JsonObject, rule: str | None) -> None:
        room = RoomBuilder(version)
        room.join(ALICE)
        event = raw_event(room, "m.room.power_levels", ALICE, content, "")
        if rule is None:
            self.assert_allowed(room, event, hint=repr(content))
        else:
            self.assert_rejected(rule, room, event, hint=repr(content))

    def test_value_types(self) -> None:
        """Version 10 takes integers only, 6 to 9 strings too, 1 to 5 also floats. Shows AUTH-13."""
        for value, last in ((5, 12), ("5", 9), (5.5, 5)):
            for version in ALL_VERSIONS:
                readable = int(version) <= last
                for name in ("users_default", "events_default", "state_default", "ban"):
                    self.check_first(version, {name: value}, None if readable else "10.1")
                for name in ("redact", "kick", "invite"):
                    self.check_first(version, {name: value}, None if readable else "10.1")
                self.check_first(version, {"events": {"t": value}}, None if readable else "10.2")
                self.check_first(version, {"users": {BOB: value}}, None if readable else "10.3")
                guarded = not readable and int(version) >= 6
                self.check_first(
                    version, {"notifications": {"room": value}}, "10.2" if guarded else None
                )

    def test_what_is_no_level_rejects(self) -> None:
        """Shows AUTH-13."""
        for version in ALL_VERSIONS:
            for junk in NO_LEVELS:
                self.check_first(version, {"ban": junk}, "10.1")
                self.check_first(version, {"events": {"t": junk}}, "10.2")
                self.check_first(version, {"users": {BOB: junk}}, "10.3")

    def test_groups_must_be_objects(self) -> None:
        for version in ALL_VERSIONS:
            for junk in (value for value in [*JUNK, 5] if value != {}):
                self.check_first(version, {"events": junk}, "10.2")
                self.check_first(version, {"users": junk}, "10.3")
                guarded = int(version) >= 6
                self.check_first(version, {"notifications": junk}, "10.2" if guarded else None)

    def test_users_must_be_user_ids(self) -> None:
        for version in ALL_VERSIONS:
            for user_id in ("", "bob", "@bob", "bob:b.example", "@bob:b example", "@" + "b" * 300):
                self.check_first(version, {"users": {user_id: 5}}, "10.3")
            # Historical user IDs are fine.
            self.check_first(version, {"users": {"@BÖB/ :b.example": 5}}, None)

    def test_users_may_be_missing(self) -> None:
        for version in ALL_VERSIONS:
            self.check_first(version, {}, None)


class RedactTest(TestCase):
    def test_levels_and_domains(self) -> None:
        """From version 3 on: redact level, or the domain of the redacted event's sender."""
        cases = [
            (BOB, CAROL, {CAROL: 50}, True),
            (BOB, CAROL, {CAROL: 49}, False),
            (BOB, BOB, {}, True),
            (BOB, "@other:b.example", {}, True),
            (BOB, "@bob:b.example:8448", {}, False),
        ]
        for version in ALL_VERSIONS:
            for event_sender, redaction_sender, users, wanted in cases:
                room = RoomBuilder(version)
                power = PowerLevels.of(room.power_levels(users=users), room.create)
                # Up to version 2 the rules have judged it: what was accepted takes effect.
                applies = wanted or int(version) < 3
                self.assertEqual(can_redact(event_sender, redaction_sender, power), applies)


class SentContentTest(TestCase):
    def refused(self, errcode: str, content: Any, creators: tuple[str, ...] = ()) -> None:
        error = self.assertRaises(MatrixError, check_sent_power_levels, content, creators)
        self.assertEqual((error.status, error.errcode), (400, errcode))

    def test_integers_pass(self) -> None:
        check_sent_power_levels({})
        check_sent_power_levels(
            {"users": {BOB: MAX}, "events": {"t": -MAX}, "notifications": {"room": 0}, "ban": 5},
            creators=[ALICE],
        )
        check_sent_power_levels({"org.example.extra": "anything"})

    def test_no_strings(self) -> None:
        """Nor other things that are no integers, whatever the room version. Shows AUTH-14."""
        for value in [*JUNK, "50", 50.0, MAX + 1, -MAX - 1]:
            for name in ("users_default", "events_default", "state_default", "ban", "redact"):
                self.refused("M_BAD_JSON", {name: value})
            self.refused("M_BAD_JSON", {"kick": value})
            self.refused("M_BAD_JSON", {"invite": value})
            self.refused("M_BAD_JSON", {"users": {BOB: value}})
            self.refused("M_BAD_JSON", {"events": {"t": value}})
            self.refused("M_BAD_JSON", {"notifications": {"room": value}})

    def test_shapes(self) -> None:
        for value in (value for value in [*JUNK, 5] if value != {}):
            self.refused("M_BAD_JSON", value)
            for name in ("users", "events", "notifications"):
                self.refused("M_BAD_JSON", {name: value})

    def test_users(self) -> None:
        """Shows AUTH-15."""
        self.refused("M_INVALID_PARAM", {"users": {"bob": 5}})
        self.refused("M_INVALID_PARAM", {"users": {BOB: 5}}, (ALICE, BOB))
