"""Changes of push rules, as asked for through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core import push_rule_changes
from homeserver.core.errors import MatrixError
from homeserver.core.push_rule_changes import (
    delete_rule,
    get_rule,
    put_rule,
    set_actions,
    set_enabled,
)
from homeserver.core.push_rules import KINDS, Ruleset
from homeserver.core.types import JsonObject

ME = "@me:example.org"
SOUND = {"set_tweak": "sound", "value": "bing"}
BODIES: dict[str, JsonObject] = {
    "override": {"actions": ["notify"], "conditions": []},
    "underride": {"actions": ["notify"], "conditions": []},
    "content": {"actions": ["notify"], "pattern": "cake"},
    "room": {"actions": ["notify"]},
    "sender": {"actions": ["notify"]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["notify", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["actions", "conditions", "pattern", "kind", "set_tweak", "enabled"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


class PushRuleChangesTestCase(SynchronousTestCase):
    def refused(self, status: int, errcode: str, change: Callable[..., Any], *args: Any) -> None:
        error = self.assertRaises(MatrixError, change, Ruleset(ME), *args)
        self.assertEqual((error.status, error.errcode), (status, errcode), args)

    def order(self, ruleset: Ruleset, kind: str = "override") -> list[str]:
        return [rule.rule_id for rule in ruleset.own[kind]]

    def with_rules(self, *rule_ids: str, kind: str = "override") -> Ruleset:
        """A ruleset with these rules, the most important one first."""
        ruleset = Ruleset(ME)
        for rule_id in reversed(rule_ids):
            ruleset = put_rule(ruleset, kind, rule_id, BODIES[kind])
        return ruleset


class PutTests(PushRuleChangesTestCase):
    def test_new_rules_are_enabled_and_first_of_their_kind(self) -> None:
        """Shows PSH-6."""
        for kind in BODIES:
            ruleset = put_rule(self.with_rules("old", kind=kind), kind, "new", BODIES[kind])
            self.assertEqual(self.order(ruleset, kind), ["new", "old"])
            shown = ruleset.rules(kind)[1 if kind == "override" else 0].to_json()
            expected = {"rule_id": "new", "enabled": True, "default": False, **BODIES[kind]}
            self.assertEqual(shown, expected)

    def test_before_and_after(self) -> None:
        """Shows PSH-6."""
        ruleset, body = self.with_rules("a", "b", "c"), BODIES["override"]
        for before, after, expected in (
            ("b", None, "axbc"),
            (None, "b", "abxc"),
            ("a", None, "xabc"),
            (None, "c", "abcx"),
            ("c", "a", "abxc"),
        ):
            placed = put_rule(ruleset, "override", "x", body, before=before, after=after)
            self.assertEqual("".join(self.order(placed)), expected, (before, after))

    def test_repeating_updates(self) -> None:
        """Shows PSH-6."""
        ruleset = self.with_rules("a", "b", "c")
        ruleset = set_enabled(ruleset, "override", "b", {"enabled": False})
        changed = put_rule(ruleset, "override", "b", {"actions": [], "conditions": []})
        self.assertEqual(self.order(changed), ["a", "b", "c"])
        rule = get_rule(changed, "override", "b")
        self.assertEqual((rule.actions, rule.enabled), ((), False))
        moved = put_rule(ruleset, "override", "c", BODIES["override"], before="a")
        self.assertEqual(self.order(moved), ["c", "a", "b"])
        same = put_rule(ruleset, "override", "b", BODIES["override"], after="b")
        self.assertEqual(self.order(same), ["a", "b", "c"])

    def test_the_same_id_in_another_kind_is_another_rule(self) -> None:
        ruleset = put_rule(self.with_rules("x"), "content", "x", BODIES["content"])
        self.assertEqual((self.order(ruleset), self.order(ruleset, "content")), (["x"], ["x"]))

    def test_a_ruleset_is_never_changed_in_place(self) -> None:
        ruleset = self.with_rules("a")
        before = ruleset.to_json()
        put_rule(ruleset, "override", "b", BODIES["override"])
        set_enabled(ruleset, "override", ".m.rule.master", {"enabled": True})
        delete_rule(ruleset, "override", "a")
        self.assertEqual(ruleset.to_json(), before)

    def test_places_that_do_not_exist(self) -> None:
        """Shows PSH-6."""
        for target in ("nope", ".m.rule.master", "x"):
            for where in ({"before": target}, {"after": target}):
                error = self.assertRaises(
                    MatrixError,
                    put_rule,
                    self.with_rules("a"),
                    "override",
                    "x",
                    BODIES["override"],
                    **where,
                )
                self.assertEqual((error.status, error.errcode), (400, "M_UNKNOWN"))

    def test_rule_ids(self) -> None:
        """Shows PSH-6."""
        for rule_id in ("", ".mine", ".m.rule.master", "a/b", "a\\b", "a\0b", "a" * 513):
            self.refused(400, "M_INVALID_PARAM", put_rule, "room", rule_id, BODIES["room"])

    def test_bad_rules(self) -> None:
        """Shows PSH-6."""
        for kind, errcode, body in (
            ("room", "M_BAD_JSON", []),
            ("room", "M_BAD_JSON", None),
            ("room", "M_MISSING_PARAM", {}),
            ("room", "M_BAD_JSON", {"actions": "notify"}),
            ("room", "M_BAD_JSON", {"actions": [1]}),
            ("room", "M_BAD_JSON", {"actions": [["notify"]]}),
            ("room", "M_INVALID_PARAM", {"actions": ["shout"]}),
            ("room", "M_INVALID_PARAM", {"actions": [{}]}),
            ("room", "M_INVALID_PARAM", {"actions": [{"set_tweak": 1}]}),
            ("room", "M_INVALID_PARAM", {"actions": ["notify"] * 1000}),
            ("room", "M_INVALID_PARAM", {"actions": [{"set_tweak": "a" * 20_000}]}),
            ("content", "M_MISSING_PARAM", {"actions": []}),
            ("content", "M_BAD_JSON", {"actions": [], "pattern": 1}),
            ("content", "M_INVALID_PARAM", {"actions": [], "pattern": "a" * 10_000}),
            ("override", "M_MISSING_PARAM", {"actions": []}),
            ("override", "M_BAD_JSON", {"actions": [], "conditions": {}}),
            ("override", "M_BAD_JSON", {"actions": [], "conditions": ["x"]}),
            ("override", "M_MISSING_PARAM", {"actions": [], "conditions": [{}]}),
            ("underride", "M_INVALID_PARAM", {"actions": [], "conditions": [{"kind": "x"}] * 1000}),
            ("dance", "M_INVALID_PARAM", {"actions": []}),
        ):
            self.refused(400, errcode, put_rule, kind, "x", body)

    def test_deep_bodies(self) -> None:
        deep: Any = {}
        for _ in range(100_000):
            deep = {"x": deep}
        body = {"actions": [], "conditions": [{"kind": "x", "y": deep}]}
        self.refused(400, "M_INVALID_PARAM", put_rule, "override", "x", body)

    def test_historical_actions_are_dropped(self) -> None:
        """Shows PSH-4."""
        body = {"actions": ["dont_notify", "coalesce", "notify", SOUND]}
        ruleset = put_rule(Ruleset(ME), "room", "!a:b", body)
        self.assertEqual(get_rule(ruleset, "room", "!a:b").to_json()["actions"], ["notify", SOUND])

    def test_numbers_of_rules_are_bounded(self) -> None:
        self.patch(push_rule_changes, "MAX_RULES", 3)
        self.patch(push_rule_changes, "MAX_SEARCHES", 2)
        ruleset = self.with_rules("a", "b", "c")
        add = (put_rule, ruleset, "override", "d", BODIES["override"])
        self.assertEqual(self.assertRaises(MatrixError, *add).errcode, "M_INVALID_PARAM")
        put_rule(ruleset, "override", "a", BODIES["override"])
        body = {"kind": "event_match", "key": "content.body", "pattern": "x"}
        ruleset = put_rule(ruleset, "content", "1", BODIES["content"])
        ruleset = put_rule(ruleset, "override", "a", {"actions": [], "conditions": [body]})
        put_rule(ruleset, "content", "1", BODIES["content"])
        add = (put_rule, ruleset, "content", "2", BODIES["content"])
        self.assertEqual(self.assertRaises(MatrixError, *add).errcode, "M_INVALID_PARAM")

    @given(st.sampled_from([*KINDS, "x"]), JSON)
    def test_junk_is_taken_or_refused(self, kind: str, body: Any) -> None:
        for change in (put_rule, set_enabled, set_actions):
            try:
                self.assertIsInstance(change(Ruleset(ME), kind, "x", body), Ruleset)
            except MatrixError as error:
                self.assertIn(error.status, (400, 404))


class ChangeTests(PushRuleChangesTestCase):
    def test_delete(self) -> None:
        """Shows PSH-6."""
        ruleset = delete_rule(self.with_rules("a", "b"), "override", "a")
        self.assertEqual(self.order(ruleset), ["b"])
        self.refused(404, "M_NOT_FOUND", delete_rule, "override", "a")
        self.refused(404, "M_NOT_FOUND", delete_rule, "override", ".m.rule.nope")
        self.refused(400, "M_INVALID_PARAM", delete_rule, "override", ".m.rule.master")
        self.refused(400, "M_INVALID_PARAM", delete_rule, "dance", "a")

    def test_enable(self) -> None:
        """Shows PSH-6."""
        ruleset = set_enabled(self.with_rules("a"), "override", "a", {"enabled": False})
        ruleset = set_enabled(ruleset, "underride", ".m.rule.message", {"enabled": False})
        self.assertFalse(get_rule(ruleset, "override", "a").enabled)
        self.assertFalse(get_rule(ruleset, "underride", ".m.rule.message").enabled)
        ruleset = set_enabled(ruleset, "underride", ".m.rule.message", {"enabled": True})
        self.assertTrue(get_rule(ruleset, "underride", ".m.rule.message").enabled)

    def test_actions(self) -> None:
        """Shows PSH-6."""
        body = {"actions": ["notify", SOUND, "dont_notify"]}
        ruleset = set_actions(self.with_rules("a"), "override", "a", body)
        ruleset = set_actions(ruleset, "underride", ".m.rule.message", body)
        for kind, rule_id in (("override", "a"), ("underride", ".m.rule.message")):
            self.assertEqual(get_rule(ruleset, kind, rule_id).actions, ("notify", SOUND))
        off = set_enabled(ruleset, "underride", ".m.rule.message", {"enabled": False})
        rule = get_rule(off, "underride", ".m.rule.message")
        self.assertEqual((rule.enabled, rule.actions), (False, ("notify", SOUND)))
        self.assertTrue(rule.default)

    def test_unknown_rules(self) -> None:
        """Shows PSH-6."""
        for rule_id in ("nope", ".m.rule.contains_display_name", ".m.rule.message"):
            self.refused(404, "M_NOT_FOUND", get_rule, "override", rule_id)
            self.refused(404, "M_NOT_FOUND", set_enabled, "override", rule_id, {"enabled": True})
            self.refused(404, "M_NOT_FOUND", set_actions, "override", rule_id, {"actions": []})
        self.refused(400, "M_INVALID_PARAM", get_rule, "dance", "nope")

    def test_bad_values(self) -> None:
        """Shows PSH-6."""
        master = ("override", ".m.rule.master")
        junks: list[Any] = [None, 0, 1, "true", [], {}]
        for value in junks:
            self.refused(400, "M_BAD_JSON", set_enabled, *master, {"enabled": value})
        self.refused(400, "M_MISSING_PARAM", set_enabled, *master, {})
        self.refused(400, "M_MISSING_PARAM", set_actions, *master, {})
        self.refused(400, "M_BAD_JSON", set_actions, *master, {"actions": None})
        bodies: list[Any] = [None, [], "x", 1]
        for junk in bodies:
            self.refused(400, "M_BAD_JSON", set_enabled, *master, junk)
            self.refused(400, "M_BAD_JSON", set_actions, *master, junk)
