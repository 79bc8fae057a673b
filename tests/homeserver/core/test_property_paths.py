"""Dot-separated property paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.property_paths import ABSENT, MAX_PATH_LENGTH, lookup, split_path


def escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace(".", "\\.")


class SplitTests(SynchronousTestCase):
    def test_escapes(self) -> None:
        """Shows ID-11."""
        cases = {
            "content.body": ("content", "body"),
            r"content.m\.relates_to": ("content", "m.relates_to"),
            r"content.m\\foo": ("content", "m\\foo"),
            r"content.m\\.foo": ("content", "m\\", "foo"),
            r"content.m\\\.foo": ("content", "m\\.foo"),
            r"content.\x": ("content", "\\x"),
            "content\\": ("content\\",),
            "": ("",),
            ".": ("", ""),
        }
        for path, names in cases.items():
            self.assertEqual(split_path(path), names, path)

    @given(st.lists(st.text(r"a.\x", max_size=4), min_size=1, max_size=4))
    def test_escaped_names_come_back(self, names: list[str]) -> None:
        """Shows ID-11."""
        self.assertEqual(split_path(".".join(map(escape, names))), tuple(names))

    def test_long_paths(self) -> None:
        self.assertEqual(len(split_path("a." * MAX_PATH_LENGTH)), MAX_PATH_LENGTH + 1)


class LookupTests(SynchronousTestCase):
    def test_values(self) -> None:
        event = {"content": {"m.mentions": {"room": True}, "body": None, "list": [{"a": 1}]}}
        self.assertIs(lookup(event, split_path(r"content.m\.mentions.room")), True)
        self.assertIsNone(lookup(event, ("content", "body")))
        for path in ("content.missing", "content.body.x", "content.list.a", "content.list.0"):
            self.assertIs(lookup(event, split_path(path)), ABSENT, path)
