"""Conditions of push rules."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.errors import MatrixError
from homeserver.core.globs import MAX_GLOB_LENGTH, compile_glob
from homeserver.core.property_paths import MAX_PATH_LENGTH
from homeserver.core.push_conditions import (
    DEFAULT_NOTIFICATION_LEVEL,
    MAX_MENTIONS,
    PushEvent,
    check_condition,
    compile_condition,
    event_match,
    is_about_content,
    is_about_room,
    mentioned_users,
)
from homeserver.core.types import JsonObject

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a.*?\\@2<=", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", max_size=2), inner),
    max_leaves=5,
)
KINDS = (
    "event_match",
    "event_property_is",
    "event_property_contains",
    "contains_display_name",
    "room_member_count",
    "sender_notification_permission",
    "org.example.unknown",
)


def event(content: Any = None, **fields: Any) -> PushEvent:
    shown = {
        "type": "m.room.message",
        "sender": "@alice:example.org",
        "room_id": "!Room:example.org",
        "content": {} if content is None else content,
        **fields,
    }
    return PushEvent(shown, member_count=3, sender_power_level=40)


def meets(condition: Any, asked: PushEvent, display_name: str | None = None) -> bool:
    return compile_condition(condition)(asked, display_name)


def match(key: str, pattern: str) -> JsonObject:
    return {"kind": "event_match", "key": key, "pattern": pattern}


class EventMatchTests(SynchronousTestCase):
    def test_whole_value_in_any_case(self) -> None:
        """Shows PSH-3."""
        condition = match("content.topic", "lunc?*")
        for topic in ("Lunch plans", "LUNCH"):
            self.assertTrue(meets(condition, event({"topic": topic})), topic)
        for value in (" lunch", "lunc", "my lunch"):
            self.assertFalse(meets(condition, event({"topic": value})), value)
        self.assertTrue(meets(match("type", "M.ROOM.MESSAGE"), event()))
        self.assertTrue(meets(match("room_id", "!room:example.org"), event()))
        self.assertFalse(meets(match("type", "m.room"), event()))

    def test_body_between_word_boundaries(self) -> None:
        """Shows PSH-3."""
        condition = match("content.body", "ex*ple")
        for body in ("An example event.", "exple", "An exciting triple-whammy"):
            self.assertTrue(meets(condition, event({"body": body})), body)
        for body in ("examples", "anexample", "ex"):
            self.assertFalse(meets(condition, event({"body": body})), body)

    def test_only_strings_match(self) -> None:
        """Shows PSH-3."""
        for value in (None, 1, True, ["a"], {"a": "a"}):
            for key in ("content.body", "content.topic"):
                asked = event({"body": value, "topic": value})
                self.assertFalse(meets(match(key, "*"), asked), value)
        self.assertFalse(meets(match("content.body", "*"), event()))
        self.assertFalse(meets(match("state_key", "*"), event()))
        self.assertFalse(meets(match("state_key", ""), event()))
        self.assertTrue(meets(match("state_key", ""), event(state_key="")))

    def test_patterns_without_wildcards(self) -> None:
        """They are compared as wholes, with what a glob would find."""
        texts = [
            "m.notice",
            "M.Notice",
            "m.notice ",
            "",
            "\u0130",
            "i\u0307",
            "\u017f",
            "s",
            "a\nb",
        ]
        for pattern in (*texts, "x" * (MAX_GLOB_LENGTH + 1)):
            condition = event_match("content.msgtype", pattern)
            for text in (*texts, pattern):
                event = PushEvent(
                    {"content": {"msgtype": text}}, member_count=2, sender_power_level=0
                )
                found = compile_glob(pattern).matches(text)
                self.assertEqual(condition(event, None), found, (pattern, text))

    def test_escaped_paths(self) -> None:
        """Shows PSH-3, ID-11."""
        asked = event({"m.relates_to": {"rel_type": "m.thread"}, "m\\x": "y"})
        self.assertTrue(meets(match(r"content.m\.relates_to.rel_type", "m.thread"), asked))
        self.assertFalse(meets(match("content.m.relates_to.rel_type", "m.thread"), asked))
        self.assertTrue(meets(match(r"content.m\\x", "y"), asked))


class PropertyTests(SynchronousTestCase):
    def test_is_compares_values_and_types(self) -> None:
        """Shows PSH-4."""
        values: list[Any] = [True, False, 1, 0, "true", "", None, -(2**53) + 1]
        for wanted in values:
            condition = {"kind": "event_property_is", "key": r"content.m\.f", "value": wanted}
            for value in values:
                same = type(value) is type(wanted) and value == wanted
                self.assertEqual(meets(condition, event({"m.f": value})), same, (wanted, value))
            for value in ([wanted], {"a": wanted}, 1.0):
                self.assertFalse(meets(condition, event({"m.f": value})), (wanted, value))
            self.assertFalse(meets(condition, event()), wanted)

    def test_contains_compares_items(self) -> None:
        """Shows PSH-4."""
        condition = {"kind": "event_property_contains", "key": "content.l", "value": "#a:b"}
        self.assertTrue(meets(condition, event({"l": ["#x:b", "#a:b"]})))
        for value in (["a:b"], [["#a:b"]], "#a:b", {"#a:b": 1}, None, []):
            self.assertFalse(meets(condition, event({"l": value})), value)
        one = {**condition, "value": 1}
        self.assertTrue(meets(one, event({"l": [{}, 1]})))
        self.assertFalse(meets(one, event({"l": [True, "1", 1.0]})))
        self.assertTrue(meets({**condition, "value": None}, event({"l": [None]})))

    def test_compound_values_never_match(self) -> None:
        """Shows PSH-4."""
        for kind in ("event_property_is", "event_property_contains"):
            values: list[Any] = [[], {}, [1], 1.5, 2**53]
            for value in values:
                condition = {"kind": kind, "key": "content.l", "value": value}
                self.assertFalse(meets(condition, event({"l": value})))
                self.assertFalse(meets(condition, event({"l": [value]})))

    def test_unknown_conditions_never_match(self) -> None:
        """Shows PSH-4."""
        for condition in (
            {"kind": "org.example.yes"},
            {"kind": "device"},
            {},
            None,
            "x",
            {"kind": 1},
        ):
            self.assertFalse(meets(condition, event()), condition)


class RoomTests(SynchronousTestCase):
    def test_member_count(self) -> None:
        """Shows PSH-5."""
        met = {"3", "==3", "<4", ">2", "<=3", ">=3", "<=4", ">=2", "03"}
        unmet = {"2", "==4", "<3", ">3", "<=2", ">=4", "", "=3", "!=2", "3 ", "-3", "3.0", "٣"}
        for comparison in met | unmet:
            condition = {"kind": "room_member_count", "is": comparison}
            self.assertEqual(meets(condition, event()), comparison in met, comparison)

    def test_sender_notification_permission(self) -> None:
        """Shows PSH-5."""
        condition = {"kind": "sender_notification_permission", "key": "room"}

        def allowed(level: int, notifications: dict[str, int] | None) -> bool:
            if notifications is None:
                return meets(condition, PushEvent({}, member_count=1, sender_power_level=level))
            asked = PushEvent(
                {},
                member_count=1,
                sender_power_level=level,
                notification_level=lambda k: notifications.get(k, DEFAULT_NOTIFICATION_LEVEL),
            )
            return meets(condition, asked)

        self.assertFalse(allowed(49, None))
        self.assertTrue(allowed(50, None))
        self.assertTrue(allowed(10, {"room": 10}))
        self.assertFalse(allowed(9, {"room": 10}))
        self.assertFalse(allowed(49, {"other": 10}))

    def test_display_name(self) -> None:
        condition = {"kind": "contains_display_name"}
        asked = event({"body": "hello Al*, how are you?"})
        self.assertTrue(meets(condition, asked, "al*"))
        for name in (None, "", "alice", "ello", "a" * 10_000):
            self.assertFalse(meets(condition, asked, name), name)
        self.assertFalse(meets(condition, event({"body": 1}), "al"))


class CheckTests(SynchronousTestCase):
    def test_refusals(self) -> None:
        """Shows PSH-6."""
        long = "a" * (MAX_GLOB_LENGTH + 1)
        for errcode, condition in (
            ("M_BAD_JSON", "event_match"),
            ("M_BAD_JSON", None),
            ("M_MISSING_PARAM", {}),
            ("M_BAD_JSON", {"kind": 1}),
            ("M_MISSING_PARAM", {"kind": "event_match", "key": "type"}),
            ("M_MISSING_PARAM", {"kind": "event_match", "pattern": "*"}),
            ("M_BAD_JSON", {"kind": "event_match", "key": "type", "pattern": 1}),
            ("M_INVALID_PARAM", match("type", long)),
            ("M_INVALID_PARAM", match("a" * (MAX_PATH_LENGTH + 1), "*")),
            ("M_MISSING_PARAM", {"kind": "event_property_is", "key": "type"}),
            ("M_BAD_JSON", {"kind": "event_property_is", "key": "type", "value": []}),
            ("M_BAD_JSON", {"kind": "event_property_contains", "key": "type", "value": 2**53}),
            ("M_BAD_JSON", {"kind": "room_member_count", "is": 2}),
            ("M_INVALID_PARAM", {"kind": "room_member_count", "is": "few"}),
            ("M_MISSING_PARAM", {"kind": "sender_notification_permission"}),
        ):
            error = self.assertRaises(MatrixError, check_condition, condition, "conditions[0]")
            self.assertEqual((error.status, error.errcode), (400, errcode), condition)
            self.assertIn("conditions[0]", error.error)

    def test_unknown_kinds_pass(self) -> None:
        check_condition({"kind": "org.example.new", "x": [1]}, "condition")

    @given(st.sampled_from(KINDS), st.fixed_dictionaries({}, optional={
        "key": JSON, "pattern": JSON, "value": JSON, "is": JSON,
    }), JSON)  # fmt: skip
    def test_junk_is_refused_or_compiled(self, kind: str, rest: JsonObject, content: Any) -> None:
        condition = {"kind": kind, **rest}
        asked = event(content, a=content)
        compiled = compile_condition(condition)
        self.assertIsInstance(compiled(asked, "a"), bool)
        try:
            check_condition(condition, "condition")
        except MatrixError:
            self.assertFalse(compiled(asked, "a"))


class ShapeTests(SynchronousTestCase):
    def test_about_one_room(self) -> None:
        self.assertEqual(is_about_room(match("room_id", "!Room:x")), "!room:x")
        for condition in (
            match("room_id", "!*:x"),
            match("room_id", "!?:x"),
            match("type", "!Room:x"),
            {"kind": "event_property_is", "key": "room_id", "pattern": "!Room:x"},
            {"kind": "event_match", "key": "room_id", "pattern": None},
        ):
            self.assertIsNone(is_about_room(condition), condition)

    def test_about_content(self) -> None:
        for condition, expected in (
            (match("content.body", "x"), True),
            (match("type", "x"), False),
            (match("contents", "x"), False),
            ({"kind": "event_property_is", "key": "content.body", "value": 1}, False),
            ({"kind": "event_property_contains", "key": "content.l", "value": 1}, True),
            ({"kind": "contains_display_name"}, True),
            ({"kind": "event_match", "key": None}, False),
        ):
            self.assertIs(is_about_content(condition), expected, condition)


class MentionTests(SynchronousTestCase):
    def test_only_what_can_be_user_ids_each_once(self) -> None:
        users = ["@b:x", "@a:x", "@b:x", 1, None, "a:x", "@" + "a" * 255, ["@c:x"]]
        self.assertEqual(mentioned_users({"m.mentions": {"user_ids": users}}), ["@b:x", "@a:x"])

    def test_junk(self) -> None:
        junks: list[Any] = [None, 1, "x", [], {}, {"user_ids": None}, {"user_ids": {"@a:x": 1}}]
        for junk in junks:
            self.assertEqual(mentioned_users({"m.mentions": junk}), [])
            self.assertEqual(mentioned_users(junk), [])

    def test_bounded(self) -> None:
        users = [f"@{number}:x" for number in range(MAX_MENTIONS + 1)]
        found = mentioned_users({"m.mentions": {"user_ids": users}})
        self.assertEqual(found, users[:-1])
