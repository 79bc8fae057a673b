"""Which state is wanted."""

from __future__ import annotations

from unittest import TestCase

from homeserver.sync.sliding.required_state import MEMBER, RequiredState

ME = "@me:x"


def of(*pairs: tuple[str, str]) -> RequiredState:
    return RequiredState.of(pairs, ME)


class RequiredStateTest(TestCase):
    def test_exact(self) -> None:
        wanted = of(("a", ""), ("b", "k"))
        self.assertTrue(wanted.matches("a", "") and wanted.matches("b", "k"))
        self.assertFalse(wanted.matches("a", "k") or wanted.matches("b", ""))

    def test_me(self) -> None:
        wanted = of((MEMBER, "$ME"))
        self.assertTrue(wanted.matches(MEMBER, ME))
        self.assertFalse(wanted.matches(MEMBER, "@you:x"))

    def test_wildcards(self) -> None:
        self.assertTrue(of(("a", "*")).matches("a", "anything"))
        self.assertFalse(of(("a", "*")).matches("b", "anything"))
        self.assertTrue(of(("*", "k")).matches("anything", "k"))
        self.assertFalse(of(("*", "k")).matches("anything", ""))
        self.assertTrue(of(("*", "*")).matches(MEMBER, "@you:x"))

    def test_lazy(self) -> None:
        """A wildcard does not mean members that come with their events."""
        wanted = of(("*", "*"), (MEMBER, "$LAZY"))
        self.assertTrue(wanted.is_lazy and wanted.matches("a", "x"))
        self.assertFalse(wanted.matches(MEMBER, ME))
        self.assertTrue(of(("*", "*"), (MEMBER, "$LAZY"), (MEMBER, "$ME")).matches(MEMBER, ME))
        self.assertFalse(of(("m.other", "$LAZY")).is_lazy)

    def test_both(self) -> None:
        """What either wants, also of members that only one has come lazily."""
        both = of(("*", "*"), (MEMBER, "$LAZY")) | of(("*", "*"))
        self.assertTrue(both.matches(MEMBER, "@you:x"))
        self.assertFalse(both.is_lazy)
        both = of(("a", "")) | of((MEMBER, "$LAZY"))
        self.assertTrue(both.is_lazy and both.matches("a", ""))

    def test_beyond(self) -> None:
        more = of(("a", ""), ("b", "")).beyond(of(("a", "")))
        self.assertEqual(more, of(("b", "")))
