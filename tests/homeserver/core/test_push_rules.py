"""Push rules: the defaults, what they say about events, and whose rules deviate."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.ids import UserID
from homeserver.core.push_conditions import PushEvent
from homeserver.core.push_rules import (
    KINDS,
    DefaultChange,
    EventClass,
    PushRule,
    Ruleset,
    class_of,
    event_class,
    highlighted_users,
    invited_user,
    notifies,
    tweaks,
)
from homeserver.core.types import JsonObject

ME, ALICE = "@me:example.org", "@alice:example.org"
ROOM = "!Room:example.org"
HIGHLIGHT = {"set_tweak": "highlight"}
SOUND = {"set_tweak": "sound", "value": "default"}
NOTHING: JsonObject = {"kind": "event_match", "key": "type", "pattern": "*"}


def event(
    event_type: str = "m.room.message",
    content: Any = None,
    *,
    members: int = 10,
    level: int = 0,
    **fields: Any,
) -> PushEvent:
    shown = {
        "type": event_type,
        "sender": ALICE,
        "room_id": ROOM,
        "content": {} if content is None else content,
        **fields,
    }
    return PushEvent(shown, member_count=members, sender_power_level=level)


def own(kind: str, rule_id: str, *actions: Any, **more: Any) -> PushRule:
    return PushRule(kind, rule_id, actions, **more)


def with_rules(*rules: PushRule, **changes: DefaultChange) -> Ruleset:
    by_kind = {kind: tuple(rule for rule in rules if rule.kind == kind) for kind in KINDS}
    renamed = {f".m.rule.{name}": change for name, change in changes.items()}
    return Ruleset(ME, by_kind, renamed)


def mention(*user_ids: str) -> JsonObject:
    return {"m.mentions": {"user_ids": list(user_ids)}}


class DefaultTests(SynchronousTestCase):
    def test_rules_and_their_order(self) -> None:
        """Shows PSH-2."""
        shown = Ruleset(ME).to_json()
        ids = {kind: [rule["rule_id"] for rule in shown[kind]] for kind in KINDS}
        expected = {
            "override": "master suppress_notices invite_for_me member_event is_user_mention "
            "is_room_mention tombstone reaction room.server_acl suppress_edits",
            "content": "",
            "room": "",
            "sender": "",
            "underride": "call encrypted_room_one_to_one room_one_to_one message encrypted",
        }
        self.assertEqual(
            {kind: ids[kind] for kind in expected},
            {
                kind: [f".m.rule.{name}" for name in names.split()]
                for kind, names in expected.items()
            },
        )

    def test_mentions_whatever_the_type_of_the_user_id(self) -> None:
        """Shows PSH-2."""
        someone = "@someone-new:example.org"
        ruleset = Ruleset(UserID.parse(someone))
        actions = ruleset.evaluate(event(content=mention(someone)))
        self.assertEqual(class_of(actions), EventClass.HIGHLIGHT)

    def test_legacy_mention_rules_are_gone(self) -> None:
        """Shows PSH-2."""
        text = json.dumps(Ruleset(ME).to_json())
        for name in ("contains_display_name", "contains_user_name", "roomnotif", "@room"):
            self.assertNotIn(name, text)
        body = {"body": "me @me:example.org @room"}
        self.assertEqual(Ruleset(ME).evaluate(event(content=body, level=100), "me"), ("notify",))

    def test_what_a_rule_looks_like(self) -> None:
        """Shows PSH-2."""
        ruleset = Ruleset(ME)
        master, mentioned = ruleset.rules("override")[0], ruleset.rules("override")[4]
        self.assertEqual(
            master.to_json(),
            {
                "rule_id": ".m.rule.master",
                "default": True,
                "enabled": False,
                "conditions": [],
                "actions": [],
            },
        )
        self.assertEqual(
            mentioned.to_json(),
            {
                "rule_id": ".m.rule.is_user_mention",
                "default": True,
                "enabled": True,
                "conditions": [
                    {
                        "kind": "event_property_contains",
                        "key": "content.m\\.mentions.user_ids",
                        "value": ME,
                    }
                ],
                "actions": ["notify", SOUND, HIGHLIGHT],
            },
        )

    def test_what_the_defaults_do(self) -> None:
        """Shows PSH-2, PSH-9."""
        edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}
        invite = {"membership": "invite"}
        ring = {"set_tweak": "sound", "value": "ring"}
        room_mention: JsonObject = {"m.mentions": {"room": True}}
        cases: list[tuple[PushEvent, tuple[Any, ...]]] = [
            (event(), ("notify",)),
            (event("m.room.encrypted"), ("notify",)),
            (event(members=2), ("notify", SOUND)),
            (event("m.room.encrypted", members=2), ("notify", SOUND)),
            (event("m.call.invite"), ("notify", ring)),
            (event("m.reaction"), ()),
            (event("m.room.topic", state_key=""), ()),
            (event("m.room.server_acl", state_key=""), ()),
            (event("m.room.tombstone", state_key=""), ("notify", HIGHLIGHT)),
            (event("m.room.tombstone", state_key="x"), ()),
            (event("m.room.tombstone"), ()),
            (event(content={"msgtype": "m.notice"}), ()),
            (event(content={"msgtype": "m.notice", **mention(ME)}), ()),
            (event(content=edit), ()),
            (event(content={**edit, **mention(ME)}), ("notify", SOUND, HIGHLIGHT)),
            (event(content=mention(ME)), ("notify", SOUND, HIGHLIGHT)),
            (event("m.reaction", mention(ME)), ("notify", SOUND, HIGHLIGHT)),
            (event(content=mention(ALICE)), ("notify",)),
            (event(content=room_mention, level=50), ("notify", HIGHLIGHT)),
            (event(content=room_mention, level=49), ("notify",)),
            (event(content={"m.mentions": {"room": "true"}}, level=50), ("notify",)),
            (event("m.room.member", invite, state_key=ME), ("notify", SOUND)),
            (event("m.room.member", invite, state_key=ALICE), ()),
            (event("m.room.member", {"membership": "join"}, state_key=ME), ()),
            (event("m.room.member", {**invite, **mention(ME)}, state_key=ALICE), ()),
        ]
        for asked, actions in cases:
            self.assertEqual(Ruleset(ME).evaluate(asked), actions, asked.fields)

    def test_own_events_never_notify(self) -> None:
        """Shows PSH-7."""
        always = with_rules(own("override", "all", "notify"))
        self.assertEqual(always.evaluate(event(sender=ME)), ())
        self.assertEqual(always.evaluate(event()), ("notify",))


class OrderTests(SynchronousTestCase):
    MESSAGE = event(content={"body": "cake time"})

    def first(self, *rules: PushRule, **changes: DefaultChange) -> tuple[Any, ...]:
        return with_rules(*rules, **changes).evaluate(self.MESSAGE)

    def test_kinds(self) -> None:
        """Shows PSH-1."""
        rules = [
            own("underride", "u", "notify", {"set_tweak": "by", "value": "underride"}),
            own("sender", ALICE, "notify", {"set_tweak": "by", "value": "sender"}),
            own("room", ROOM, "notify", {"set_tweak": "by", "value": "room"}),
            own("content", "c", "notify", {"set_tweak": "by", "value": "content"}, pattern="cake"),
            own("override", "o", "notify", {"set_tweak": "by", "value": "override"}),
        ]
        for count in range(1, len(rules) + 1):
            winner = rules[count - 1]
            self.assertEqual(tweaks(self.first(*rules[:count]))["by"], winner.kind)

    def test_own_rules_before_defaults_of_the_kind(self) -> None:
        """Shows PSH-1."""
        mine = own("override", "mine", "notify", {"set_tweak": "mine"})
        ruleset = with_rules(mine)
        ids = [rule.rule_id for rule in ruleset.rules("override")]
        self.assertEqual(ids[:3], [".m.rule.master", "mine", ".m.rule.suppress_notices"])
        asked = event(content={"msgtype": "m.notice"})
        self.assertEqual(ruleset.evaluate(asked), mine.actions)
        silent = own("underride", "silent")
        self.assertEqual(self.first(silent), ())

    def test_the_first_of_a_kind_wins(self) -> None:
        """Shows PSH-1."""
        tea = own("content", "tea", "notify", HIGHLIGHT, pattern="cake")
        time = own("content", "time", pattern="time")
        self.assertEqual(self.first(tea, time), tea.actions)
        self.assertEqual(self.first(time, tea), ())

    def test_master_above_all(self) -> None:
        """Shows PSH-1."""
        mine = own("override", "mine", "notify")
        self.assertEqual(self.first(mine, master=DefaultChange(enabled=True)), ())
        self.assertEqual(self.first(mine), ("notify",))

    def test_disabled_rules_never_match(self) -> None:
        """Shows PSH-1."""
        for kind, rule_id in (("override", "x"), ("room", ROOM), ("sender", ALICE)):
            self.assertEqual(self.first(own(kind, rule_id, enabled=False)), ("notify",))
            self.assertEqual(self.first(own(kind, rule_id)), ())
        off = DefaultChange(enabled=False)
        self.assertEqual(self.first(message=off), ())

    def test_room_and_sender_rules_are_about_theirs(self) -> None:
        """Shows PSH-1."""
        self.assertEqual(self.first(own("room", ROOM.lower()), own("sender", ME)), ("notify",))

    def test_rules_with_unknown_conditions_are_passed_over(self) -> None:
        """Shows PSH-4."""
        condition = {"kind": "org.example.unknown"}
        unknown = own("override", "x", conditions=(NOTHING, condition))
        self.assertEqual(self.first(unknown), ("notify",))

    def test_hostile_events(self) -> None:
        ruleset = with_rules(own("room", ROOM), own("sender", ALICE))
        junks: list[Any] = [None, 1, [], {}, "x", True]
        for junk in junks:
            shown = {"type": junk, "sender": junk, "room_id": junk, "state_key": junk}
            for content in (junk, {"m.mentions": junk, "body": junk, "m.relates_to": junk}):
                asked = PushEvent(
                    {**shown, "content": content}, member_count=0, sender_power_level=0
                )
                self.assertEqual(ruleset.evaluate(asked), ())
                self.assertIs(event_class(asked), EventClass.NONE)
                self.assertEqual(highlighted_users(asked), [])
                self.assertIsNone(invited_user(asked))


class ActionTests(SynchronousTestCase):
    def test_classes(self) -> None:
        off = {"set_tweak": "highlight", "value": False}
        for actions, expected in (
            ((), EventClass.NONE),
            (("dont_notify",), EventClass.NONE),
            ((HIGHLIGHT,), EventClass.NONE),
            (("notify",), EventClass.NOTIFY),
            (("notify", off), EventClass.NOTIFY),
            (("notify", HIGHLIGHT), EventClass.HIGHLIGHT),
            (("notify", {**HIGHLIGHT, "value": True}), EventClass.HIGHLIGHT),
            (("notify", {**HIGHLIGHT, "value": "yes"}), EventClass.NOTIFY),
        ):
            self.assertIs(class_of(actions), expected, actions)

    def test_historical_actions_mean_nothing(self) -> None:
        """Shows PSH-4."""
        self.assertFalse(notifies(["dont_notify"]))
        self.assertFalse(notifies(["coalesce"]))
        self.assertTrue(notifies(["coalesce", "notify"]))

    def test_tweaks(self) -> None:
        found = tweaks(["notify", SOUND, HIGHLIGHT, {"set_tweak": 1}, {"x": 1}, {"set_tweak": "z"}])
        self.assertEqual(found, {"sound": "default", "highlight": True})


class ClassTests(SynchronousTestCase):
    """One judgement per event agrees with asking every user's default rules."""

    EVENTS = (
        event(),
        event(members=2),
        event("m.room.encrypted"),
        event("m.call.invite"),
        event("m.reaction"),
        event("m.room.topic", state_key=""),
        event("m.room.tombstone", state_key=""),
        event(content={"msgtype": "m.notice"}),
        event(content={"msgtype": "m.notice", **mention(ME)}),
        event(content={"m.relates_to": {"rel_type": "m.replace"}}),
        event(content={"m.relates_to": {"rel_type": "m.replace"}, **mention(ME)}),
        event(content=mention(ME, ALICE)),
        event("m.reaction", mention(ME)),
        event(content={"m.mentions": {"room": True, "user_ids": [ME]}}, level=50),
        event(content={"m.mentions": {"room": True}}, level=50),
        event(content={"m.mentions": {"room": True}}, level=0),
        event("m.room.member", {"membership": "invite"}, state_key=ME),
        event("m.room.member", {"membership": "invite", **mention(ME)}, state_key=ME),
        event("m.room.member", {"membership": "invite", "msgtype": "m.notice"}, state_key=ME),
        event("m.room.member", {"membership": "leave", **mention(ME)}, state_key=ME),
        event("m.room.member", {"membership": "invite"}, state_key=ALICE),
        event("m.room.member", {"membership": "invite"}),
    )

    def test_agreement(self) -> None:
        """Shows PSH-2, PSH-8."""
        for asked in self.EVENTS:
            for user_id in (ME, "@other:example.org"):
                expected = event_class(asked)
                if user_id in highlighted_users(asked):
                    expected = EventClass.HIGHLIGHT
                elif user_id == invited_user(asked):
                    expected = EventClass.NOTIFY
                actions = Ruleset(user_id).evaluate(asked)
                self.assertIs(class_of(actions), expected, (user_id, asked.fields))

    def test_classes(self) -> None:
        """Shows PSH-8."""
        self.assertIs(event_class(event()), EventClass.NOTIFY)
        self.assertIs(event_class(event("M.Room.Message")), EventClass.NOTIFY)
        self.assertIs(event_class(event("m.room.messages")), EventClass.NONE)
        self.assertIs(event_class(event("m.room.encrypted")), EventClass.NOTIFY)
        self.assertIs(event_class(event("m.reaction")), EventClass.NONE)
        everybody: JsonObject = {"m.mentions": {"room": True}}
        self.assertIs(event_class(event(content=everybody, level=50)), EventClass.HIGHLIGHT)
        self.assertIs(event_class(event(content=everybody, level=49)), EventClass.NOTIFY)
        self.assertIs(event_class(event(content=mention(ME))), EventClass.NOTIFY)

    def test_the_sender_is_not_highlighted(self) -> None:
        """Shows PSH-7."""
        self.assertEqual(highlighted_users(event(content=mention(ALICE, ME))), [ME])
        knock = event("m.room.member", {"membership": "invite"}, state_key=ALICE)
        self.assertIsNone(invited_user(knock))
        self.assertIsNone(invited_user(event("m.room.topic", state_key=ME)))


class DeviationTests(SynchronousTestCase):
    OTHER = "!other:example.org"

    def test_the_defaults(self) -> None:
        self.assertTrue(Ruleset(ME).is_default)
        self.assertFalse(Ruleset(ME).differs_in(ROOM))

    def test_changes_that_do_not_change_the_class(self) -> None:
        for ruleset in (
            with_rules(message=DefaultChange(actions=("notify", SOUND))),
            with_rules(message=DefaultChange(enabled=True)),
            with_rules(master=DefaultChange(actions=("notify",))),
            with_rules(own("override", "off", enabled=False)),
            with_rules(own("override", "x", conditions=({"kind": "org.example.unknown"},))),
        ):
            self.assertTrue(ruleset.is_default)
            self.assertFalse(ruleset.differs_in(ROOM))

    def test_changes_everywhere(self) -> None:
        wild = {"kind": "event_match", "key": "room_id", "pattern": "!*"}
        for ruleset in (
            with_rules(master=DefaultChange(enabled=True)),
            with_rules(message=DefaultChange(enabled=False)),
            with_rules(message=DefaultChange(actions=())),
            with_rules(encrypted=DefaultChange(actions=("notify", HIGHLIGHT))),
            with_rules(suppress_edits=DefaultChange(enabled=False)),
            with_rules(own("content", "cake", "notify", HIGHLIGHT, pattern="cake")),
            with_rules(own("sender", ALICE)),
            with_rules(own("override", "x")),
            with_rules(own("override", "x", conditions=(wild,))),
        ):
            self.assertFalse(ruleset.is_default)
            self.assertTrue(ruleset.differs_in(ROOM))

    def test_rules_about_one_room(self) -> None:
        condition = {"kind": "event_match", "key": "room_id", "pattern": ROOM}
        for rule in (
            own("room", ROOM),
            own("override", ROOM, conditions=(condition,)),
            own("underride", "x", "notify", conditions=(NOTHING, condition)),
        ):
            ruleset = with_rules(rule)
            self.assertFalse(ruleset.is_default)
            self.assertTrue(ruleset.differs_in(ROOM))
            self.assertFalse(ruleset.differs_in(self.OTHER))
            mine = ruleset.evaluate(event("m.room.topic", room_id=self.OTHER))
            self.assertEqual(mine, Ruleset(ME).evaluate(event("m.room.topic", room_id=self.OTHER)))


class StorageTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        ruleset = with_rules(
            own("override", "a", "notify", SOUND, conditions=(NOTHING,)),
            own("override", "b", enabled=False),
            own("content", "c", pattern="cake"),
            own("room", ROOM),
            own("sender", ALICE, "notify"),
            master=DefaultChange(enabled=True),
            message=DefaultChange(actions=()),
        )
        stored = json.loads(json.dumps(ruleset.dump()))
        loaded = Ruleset.load(ME, stored)
        self.assertEqual(loaded.to_json(), ruleset.to_json())
        self.assertEqual(loaded.dump(), stored)
        self.assertEqual(loaded.own, ruleset.own)

    def test_nothing_is_stored_of_the_defaults(self) -> None:
        self.assertEqual(Ruleset(ME).dump(), {"own": {}, "changes": {}})
        self.assertTrue(Ruleset.load(ME, {}).is_default)

    def test_changes_of_rules_that_are_gone(self) -> None:
        stored = {"changes": {".m.rule.roomnotif": {"enabled": False}}}
        self.assertEqual(Ruleset.load(ME, stored).dump()["changes"], {})
