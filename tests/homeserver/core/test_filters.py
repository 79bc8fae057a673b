"""Filters: parsing, refusing, matching, trimming."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.errors import MatrixError
from homeserver.core.filters import (
    MAX_ITEMS,
    MAX_PATH_DEPTH,
    MAX_WILDCARDS,
    NO_FILTER,
    NO_ROOM_EVENT_FILTER,
    Filter,
    RoomEventFilter,
    content_contains_url,
    parse_filter,
    parse_room_event_filter,
)
from homeserver.core.types import JsonObject

ROOM, OTHER_ROOM = "!room:example.org", "!other:example.org"
ALICE, BOB = "@alice:example.org", "@bob:example.org"
FULL: JsonObject = {
    "event_fields": ["type", "content"],
    "event_format": "federation",
    "presence": {"limit": 3, "types": ["m.presence"], "not_senders": [ALICE]},
    "account_data": {"not_types": ["*"]},
    "room": {
        "rooms": [ROOM],
        "not_rooms": [OTHER_ROOM],
        "include_leave": True,
        "timeline": {"limit": 10, "contains_url": False, "unread_thread_notifications": True},
        "state": {"lazy_load_members": True, "include_redundant_members": True},
        "ephemeral": {"types": []},
        "account_data": {"senders": [BOB]},
    },
}
KEYS = ["room", "timeline", "state", "types", "not_types", "senders", "rooms", "limit", "x"]
KEYS += ["event_fields", "event_format", "contains_url", "lazy_load_members", "presence"]
KEYS += ["related_by_senders", "rel_types"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def section(**keys: Any) -> RoomEventFilter:
    return parse_room_event_filter(keys)


class MatchingTests(SynchronousTestCase):
    def matches(self, wanted: RoomEventFilter, **event: Any) -> bool:
        fields = {"event_type": "m.room.message", "sender": ALICE, "room_id": ROOM, **event}
        return wanted.matches_event(**fields)

    def test_types(self) -> None:
        """Shows FIL-1."""
        wanted = section(types=["m.room.*", "m.sticker"])
        self.assertTrue(wanted.matches("m.room.message"))
        self.assertTrue(wanted.matches("m.room."))
        self.assertTrue(wanted.matches("m.sticker"))
        self.assertFalse(wanted.matches("m.stickers"))
        self.assertFalse(wanted.matches("xm.room.message"))
        self.assertFalse(wanted.matches("M.ROOM.MESSAGE"))

    def test_only_the_star_is_special_in_types(self) -> None:
        """Shows FIL-1."""
        wanted = section(types=["m.?*", "m.[a]"])
        self.assertFalse(wanted.matches("m.ab"))
        self.assertFalse(wanted.matches("m.a"))
        self.assertTrue(wanted.matches("m.?b"))
        self.assertTrue(wanted.matches("m.[a]"))

    def test_exclusion_beats_inclusion(self) -> None:
        """Shows FIL-1."""
        self.assertFalse(section(types=["m.a"], not_types=["m.*"]).matches("m.a"))
        self.assertFalse(section(types=["*"], not_types=["m.a"]).matches("m.a"))
        self.assertTrue(section(types=["*"], not_types=["m.a"]).matches("m.b"))
        senders = section(senders=[ALICE, BOB], not_senders=[ALICE])
        self.assertFalse(self.matches(senders))
        self.assertTrue(self.matches(senders, sender=BOB))
        rooms = section(rooms=[ROOM, OTHER_ROOM], not_rooms=[ROOM])
        self.assertFalse(self.matches(rooms))
        self.assertTrue(self.matches(rooms, room_id=OTHER_ROOM))

    def test_senders(self) -> None:
        """Shows FIL-1."""
        self.assertTrue(self.matches(section(senders=[ALICE])))
        self.assertFalse(self.matches(section(senders=[BOB])))
        self.assertFalse(self.matches(section(not_senders=[ALICE])))
        self.assertFalse(self.matches(section(senders=[ALICE]), sender=None))
        self.assertTrue(self.matches(section(not_senders=[ALICE]), sender=None))

    def test_rooms_of_a_section(self) -> None:
        """Shows FIL-1."""
        self.assertTrue(self.matches(section(rooms=[ROOM])))
        self.assertFalse(self.matches(section(rooms=[OTHER_ROOM])))
        self.assertFalse(self.matches(section(not_rooms=[ROOM])))

    def test_contains_url(self) -> None:
        """Shows FIL-1."""
        for wanted, contains, expected in (
            (True, True, True),
            (True, False, False),
            (False, True, False),
            (False, False, True),
        ):
            found = self.matches(section(contains_url=wanted), contains_url=contains)
            self.assertEqual(found, expected, (wanted, contains))
        self.assertTrue(self.matches(section(), contains_url=True))
        self.assertTrue(content_contains_url({"url": "mxc://a/b"}))
        for content in ({}, {"info": {"url": ""}}, None, ["url"], "url"):
            self.assertFalse(content_contains_url(content))

    def test_empty_lists_include_nothing(self) -> None:
        """Shows FIL-1."""
        for key in ("types", "senders", "rooms"):
            wanted = section(**{key: []})
            self.assertFalse(self.matches(wanted), key)
            self.assertTrue(wanted.matches_nothing, key)
        for key in ("not_types", "not_senders", "not_rooms"):
            self.assertTrue(self.matches(section(**{key: []})), key)
            self.assertTrue(section(**{key: []}).matches_everything, key)

    def test_limits(self) -> None:
        """Shows FIL-1."""
        self.assertEqual(section().limit_within(20, 100), 20)
        self.assertEqual(section(limit=5).limit_within(20, 100), 5)
        self.assertEqual(section(limit=0).limit_within(20, 100), 0)
        self.assertEqual(section(limit=2**60).limit_within(20, 100), 100)

    def test_rel_types(self) -> None:
        self.assertTrue(self.matches(section(rel_types=["m.thread"]), rel_type="m.thread"))
        self.assertFalse(self.matches(section(rel_types=["m.thread"])))
        self.assertFalse(self.matches(section(not_rel_types=["m.thread"]), rel_type="m.thread"))
        self.assertTrue(self.matches(section(not_rel_types=["m.thread"])))
        unstable = section(**{"org.matrix.msc3874.not_rel_types": ["m.thread"]})
        self.assertFalse(self.matches(unstable, rel_type="m.thread"))

    def test_related_by(self) -> None:
        both = section(related_by_rel_types=["m.thread"], related_by_senders=[ALICE])
        self.assertTrue(both.needs_relations)
        self.assertTrue(both.matches_relations([("m.x", BOB), ("m.thread", ALICE)]))
        self.assertFalse(both.matches_relations([("m.x", ALICE), ("m.thread", BOB)]))
        self.assertFalse(both.matches_relations([]))
        unstable = section(**{"io.element.relation_types": ["m.thread"]})
        self.assertTrue(unstable.matches_relations([("m.thread", BOB)]))
        self.assertFalse(section().needs_relations)
        self.assertTrue(section().matches_relations([]))

    def test_the_rooms_filter_comes_first(self) -> None:
        """Shows FIL-2."""
        source = {
            "rooms": [ROOM, OTHER_ROOM],
            "not_rooms": [OTHER_ROOM],
            "timeline": {"rooms": [OTHER_ROOM]},
        }
        room = parse_filter({"room": source}).room
        self.assertTrue(room.matches_room(ROOM))
        self.assertFalse(room.matches_room(OTHER_ROOM))
        self.assertFalse(room.matches_room("!third:example.org"))
        self.assertTrue(room.timeline.matches_room(OTHER_ROOM))
        self.assertTrue(parse_filter({}).room.matches_room(ROOM))

    def test_what_is_hidden_by_one_section_passes_the_other(self) -> None:
        """Shows FIL-4: sections are independent, so that state hidden by `timeline` is sent."""
        room = parse_filter({"room": {"timeline": {"types": ["m.room.message"]}}}).room
        self.assertFalse(room.timeline.matches("m.room.topic", ALICE))
        self.assertTrue(room.state.matches("m.room.topic", ALICE))


class ShortcutTests(SynchronousTestCase):
    def test_everything(self) -> None:
        for wanted in (section(), section(types=["*"]), section(types=["m.a", "*"], limit=3)):
            self.assertTrue(wanted.matches_everything)
        for keys in (
            {"types": ["m.*"]},
            {"not_types": ["m.a"]},
            {"senders": [ALICE]},
            {"not_senders": [ALICE]},
            {"rooms": [ROOM]},
            {"not_rooms": [ROOM]},
            {"contains_url": False},
            {"rel_types": ["a"]},
            {"not_rel_types": ["a"]},
            {"related_by_senders": [ALICE]},
        ):
            self.assertFalse(section(**keys).matches_everything, keys)

    def test_nothing(self) -> None:
        for keys in (
            {"not_types": ["*"]},
            {"senders": [ALICE], "not_senders": [ALICE]},
            {"rooms": [ROOM], "not_rooms": [ROOM, OTHER_ROOM]},
        ):
            self.assertTrue(section(**keys).matches_nothing, keys)
        for keys in ({}, {"types": ["m.*"]}, {"rooms": [ROOM]}, {"not_types": ["m.*"]}):
            self.assertFalse(section(**keys).matches_nothing, keys)

    def test_parts_for_a_query(self) -> None:
        types = section(types=["m.b", "m.a", "m.*", "x*y", "m.a"]).types
        assert types is not None
        self.assertEqual(types.exact, frozenset({"m.a", "m.b"}))
        self.assertEqual(types.wildcards, ("m.*", "x*y"))


class TrimTests(SynchronousTestCase):
    EVENT: JsonObject = {
        "type": "m.room.message",
        "sender": ALICE,
        "content": {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "x": [1]}, "n": None},
    }

    def trim(self, *fields: str) -> JsonObject:
        return parse_filter({"event_fields": list(fields)}).trim(self.EVENT)

    def test_dot_paths(self) -> None:
        """Shows FIL-7, ID-11."""
        self.assertEqual(self.trim("type"), {"type": "m.room.message"})
        self.assertEqual(self.trim("content.body"), {"content": {"body": "hi"}})
        self.assertEqual(
            self.trim("sender", r"content.m\.relates_to.rel_type", "content.n"),
            {"sender": ALICE, "content": {"m.relates_to": {"rel_type": "m.thread"}, "n": None}},
        )
        self.assertEqual(self.trim("content.m.relates_to", "nope", "type.x", ""), {})

    def test_absent_and_empty(self) -> None:
        """Shows FIL-7."""
        self.assertEqual(parse_filter({}).trim(self.EVENT), self.EVENT)
        self.assertEqual(self.trim(), {})

    def test_paths_inside_each_other_leave_the_event_alone(self) -> None:
        """Shows FIL-7."""
        before = copy.deepcopy(self.EVENT)
        trimmed = self.trim("content.body", "content", r"content.m\.relates_to.x")
        self.assertEqual(trimmed, {"content": self.EVENT["content"]})
        self.assertEqual(self.EVENT, before)


class ParsingTests(SynchronousTestCase):
    def refused(self, source: Any, errcode: str, name: str) -> None:
        error = self.assertRaises(MatrixError, parse_filter, source)
        self.assertEqual((error.status, error.errcode), (400, errcode), source)
        self.assertIn(name, error.error)

    def test_every_field(self) -> None:
        parsed = parse_filter(FULL)
        self.assertEqual(parsed.event_fields, (("content",), ("type",)))
        self.assertEqual(parsed.event_format, "federation")
        self.assertEqual(parsed.presence.limit, 3)
        self.assertFalse(parsed.presence.matches("m.presence", ALICE))
        self.assertTrue(parsed.account_data.matches_nothing)
        self.assertTrue(parsed.room.include_leave)
        self.assertIs(parsed.room.timeline.contains_url, False)
        self.assertTrue(parsed.room.unread_thread_notifications)
        self.assertTrue(parsed.room.lazy_load_members)
        self.assertTrue(parsed.room.state.include_redundant_members)
        self.assertTrue(parsed.room.ephemeral.matches_nothing)
        self.assertEqual(parsed.room.account_data.senders, frozenset({BOB}))

    def test_defaults(self) -> None:
        self.assertEqual(parse_filter({}), NO_FILTER)
        self.assertEqual(parse_filter({"room": {"timeline": {}}, "unknown": [1]}), NO_FILTER)
        self.assertEqual(parse_room_event_filter({}), NO_ROOM_EVENT_FILTER)
        self.assertFalse(NO_FILTER.room.lazy_load_members)
        self.assertFalse(NO_FILTER.room.include_leave)
        self.assertEqual(NO_FILTER.event_format, "client")

    def test_equal_filters_are_one_key(self) -> None:
        self.assertEqual({parse_filter(FULL): 1}[parse_filter(copy.deepcopy(FULL))], 1)

    def test_unstable_name_of_thread_counts(self) -> None:
        source = {"org.matrix.msc3773.unread_thread_notifications": True}
        self.assertTrue(parse_room_event_filter(source).unread_thread_notifications)

    def test_booleans_take_only_booleans(self) -> None:
        """Shows FIL-6."""
        values: list[Any] = [None, 0, 1, "true", "", [], {}, 1.0]
        for value in values:
            for key in (
                "lazy_load_members",
                "include_redundant_members",
                "contains_url",
                "unread_thread_notifications",
            ):
                for part in ("timeline", "state", "ephemeral", "account_data"):
                    self.refused({"room": {part: {key: value}}}, "M_BAD_JSON", f"{part}.{key}")
            self.refused({"room": {"include_leave": value}}, "M_BAD_JSON", "room.include_leave")

    def test_wrong_types(self) -> None:
        not_objects: list[Any] = [None, True, 1, "x", [], 1.5]
        for junk in not_objects:
            self.refused(junk, "M_BAD_JSON", "filter")
            for part in ("presence", "account_data", "room"):
                self.refused({part: junk}, "M_BAD_JSON", part)
            for part in ("timeline", "state", "ephemeral", "account_data"):
                self.refused({"room": {part: junk}}, "M_BAD_JSON", f"room.{part}")
        not_lists: list[Any] = [None, True, 1, "m.a", {}, [1], ["m.a", None], [["m.a"]]]
        for junk in not_lists:
            self.refused({"event_fields": junk}, "M_BAD_JSON", "event_fields")
            for key in ("types", "not_types", "senders", "not_senders"):
                self.refused({"presence": {key: junk}}, "M_BAD_JSON", f"presence.{key}")
            for key in ("rooms", "not_rooms"):
                self.refused({"room": {key: junk}}, "M_BAD_JSON", f"room.{key}")
                self.refused({"room": {"state": {key: junk}}}, "M_BAD_JSON", f"state.{key}")
        not_integers: list[Any] = [None, True, "1", 1.0, [], {}]
        for junk in not_integers:
            self.refused({"room": {"timeline": {"limit": junk}}}, "M_BAD_JSON", "timeline.limit")
        not_strings: list[Any] = [None, True, 1, [], {}]
        for junk in not_strings:
            self.refused({"event_format": junk}, "M_BAD_JSON", "event_format")

    def test_values_out_of_range(self) -> None:
        self.refused({"event_format": "html"}, "M_INVALID_PARAM", "event_format")
        self.refused({"presence": {"limit": -1}}, "M_INVALID_PARAM", "presence.limit")
        self.refused({"presence": {"senders": ["alice"]}}, "M_INVALID_PARAM", "presence.senders")
        self.refused({"room": {"rooms": ["room"]}}, "M_INVALID_PARAM", "room.rooms")
        self.refused({"room": {"timeline": {"not_rooms": [""]}}}, "M_INVALID_PARAM", "not_rooms")

    def test_sizes_are_bounded(self) -> None:
        many = [f"m.{number}" for number in range(MAX_ITEMS + 1)]
        wild = [f"m.{number}*" for number in range(MAX_WILDCARDS + 1)]
        deep = ".".join("a" * (MAX_PATH_DEPTH + 1))
        parse_filter({"presence": {"types": many[1:], "not_types": wild[1:]}})
        parse_filter({"event_fields": [deep[2:]]})
        for source, name in (
            ({"presence": {"types": many}}, "presence.types"),
            ({"presence": {"types": wild}}, "presence.types"),
            ({"presence": {"types": ["a" * 10_000]}}, "presence.types"),
            ({"presence": {"senders": ["@" + "a" * 255]}}, "presence.senders"),
            ({"event_fields": many}, "event_fields"),
            ({"event_fields": [deep]}, "event_fields"),
            ({"event_fields": ["a" * 10_000]}, "event_fields"),
        ):
            self.refused(source, "M_INVALID_PARAM", name)

    def test_deep_unknown_keys(self) -> None:
        deep: Any = {}
        for _ in range(100_000):
            deep = {"x": deep}
        self.assertEqual(parse_filter({"unknown": deep}), NO_FILTER)

    @given(JSON)
    def test_junk_is_parsed_or_refused(self, source: Any) -> None:
        try:
            parsed = parse_filter(source)
        except MatrixError as error:
            self.assertEqual(error.status, 400)
        else:
            self.assertIsInstance(parsed, Filter)
            hash(parsed)
