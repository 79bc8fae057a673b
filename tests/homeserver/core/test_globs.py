"""Globs: plain matching, word boundaries, SQL forms, and hostile patterns."""

from __future__ import annotations

import re
import sqlite3

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.globs import (
    MAX_GLOB_LENGTH,
    compile_glob,
    contains_words,
    glob_matches,
    is_word_boundary,
    like_pattern,
    sqlite_glob_pattern,
)

# few characters, so that many pairs match
PATTERNS = st.text("a-?*", max_size=6)
TEXTS = st.text("aA-", max_size=9)


def as_regex(pattern: str, wild: str = "*?") -> str:
    forms = {"*": ".*", "?": "."}
    return "".join(forms[c] if c in wild and c in forms else re.escape(c) for c in pattern)


def slow_match(pattern: str, text: str) -> bool:
    return re.fullmatch(as_regex(pattern), text, re.DOTALL | re.IGNORECASE) is not None


def slow_word_match(pattern: str, text: str) -> bool:
    places = [i for i in range(len(text) + 1) if is_word_boundary(text, i)]
    return any(slow_match(pattern, text[i:j]) for i in places for j in places if i <= j)


class WholeStringTests(SynchronousTestCase):
    def test_wildcards(self) -> None:
        """Shows ID-10."""
        cases = {
            ("*", ""): True,
            ("*", "a\nb"): True,
            ("", ""): True,
            ("", "a"): False,
            ("?", ""): False,
            ("?", "a"): True,
            ("?", "\n"): True,
            ("?", "ab"): False,
            ("a*c", "ac"): True,
            ("a*c", "abcbc"): True,
            ("a*c", "abcb"): False,
            ("a?c", "ac"): False,
            ("*.example.org", "matrix.example.org"): True,
            ("*.example.org", "example.org"): False,
            ("*.example.org", "matrix.example.org.evil"): False,
            ("ab*ba", "aba"): False,
            ("a?b?c", "a-b-c"): True,
            ("a?b?c", "a-b-d"): False,
            ("*b?c", "a-b-c"): True,
            ("*b?*?d*", "abcd"): False,
            ("*b?*?d*", "abccd"): True,
            ("*aa*aa*", "aaa"): False,
            ("*aa*aa*", "aaaa"): True,
            ("lunc?*", "Lunch plans"): True,
            ("lunc?*", " lunch"): False,
            ("lunc?*", "lunc"): False,
        }
        for (pattern, text), expected in cases.items():
            self.assertEqual(glob_matches(pattern, text), expected, (pattern, text))

    def test_nothing_else_is_special(self) -> None:
        """Shows ID-10."""
        for char in r"[](){}.+^$|\!#-":
            self.assertTrue(glob_matches(f"a{char}b", f"a{char}b"), char)
            self.assertFalse(glob_matches(f"a{char}b", "aab"), char)
        self.assertFalse(glob_matches("[ab]", "a"))
        self.assertFalse(glob_matches(r"\*", "*"))
        self.assertTrue(glob_matches(r"\*", "\\anything"))

    def test_the_whole_string_must_match(self) -> None:
        """Shows ID-10."""
        self.assertFalse(glob_matches("evil.org", "evil.org\n"))
        self.assertFalse(glob_matches("evil.org", "not.evil.org"))

    def test_case(self) -> None:
        self.assertTrue(glob_matches("EVIL.*", "evil.org"))
        self.assertFalse(glob_matches("EVIL.*", "evil.org", ignore_case=False))

    def test_question_mark_can_be_literal(self) -> None:
        glob = compile_glob("a?*", question_mark=False)
        self.assertTrue(glob.matches("a?b"))
        self.assertFalse(glob.matches("abb"))

    @settings(max_examples=500)
    @given(PATTERNS, TEXTS)
    def test_like_a_regular_expression(self, pattern: str, text: str) -> None:
        """Shows ID-10."""
        self.assertEqual(compile_glob(pattern).matches(text), slow_match(pattern, text))


class WordTests(SynchronousTestCase):
    def test_between_word_boundaries(self) -> None:
        cases = {
            ("cake", "a cake!"): True,
            ("cake", "CAKE"): True,
            ("cake", "cakes"): False,
            ("cake", "cheesecake"): False,
            ("cake", "cheesecake cake"): True,
            ("cake", "un_cake"): False,
            ("cake", "écakeé"): True,
            ("cake*lie", "the cake is a lie"): True,
            ("cake*lie", "the cake is a lies"): False,
            ("cake*lie", "the cake is a lies, no: lie"): True,
            ("ex*ple", "An example event."): True,
            ("ex*ple", "exple"): True,
            ("ex*ple", "An exciting triple-whammy"): True,
            ("c?ke", "coke"): True,
            ("c?ke", "coker"): False,
            ("*ke", "coke"): True,
            ("a*c?ke", "a coker coke"): True,
            ("a*c?ke", "a coker"): False,
            ("a*kk", "a kkkk"): True,
            ("a*kk", "a kkkx"): False,
            ("a*ab ab", "a ab abx ab ab"): True,
            ("co*", "coke"): True,
            ("co*", "acoke"): False,
            ("#room", "in #room"): True,
            ("*", ""): True,
        }
        for (pattern, text), expected in cases.items():
            self.assertEqual(compile_glob(pattern).matches_words(text), expected, (pattern, text))

    @settings(max_examples=500)
    @given(PATTERNS, TEXTS)
    @example("a?*-b", "-aA -b")
    def test_like_trying_every_substring(self, pattern: str, text: str) -> None:
        expected = slow_word_match(pattern, text)
        self.assertEqual(compile_glob(pattern).matches_words(text), expected)

    def test_literal_words(self) -> None:
        self.assertTrue(contains_words("Al*", "hi al* there"))
        self.assertFalse(contains_words("Al*", "hi alice"))
        self.assertFalse(contains_words("al", "alice"))


class BoundTests(SynchronousTestCase):
    def test_too_long_matches_nothing(self) -> None:
        text = "a" * (MAX_GLOB_LENGTH + 1)
        self.assertFalse(glob_matches(text, text))
        self.assertFalse(compile_glob(text).matches_words(text))
        self.assertTrue(glob_matches(text[1:], text[1:]))

    def test_runs_of_stars_count_once(self) -> None:
        self.assertTrue(glob_matches("a" + "*" * 100_000 + "b", "a-b"))

    def test_patterns_that_would_explode(self) -> None:
        """Each of these takes a backtracking matcher longer than anybody waits."""
        text = "a" * 65_000
        for pattern in (
            "*a" * 200 + "b",
            "*a?" * 150 + "b",
            "?" * 500 + "b",
            "*" + "a" * 500 + "b",
        ):
            self.assertFalse(compile_glob(pattern).matches(text + "c"))
            self.assertFalse(compile_glob(pattern).matches_words(text + "c"))


class SqlFormTests(SynchronousTestCase):
    @given(st.text("ab?[]%_!*\\", max_size=6), st.text("abA?[]%_!\\", max_size=6))
    def test_the_database_agrees(self, pattern: str, text: str) -> None:
        expected = compile_glob(pattern, ignore_case=False, question_mark=False).matches(text)
        database = sqlite3.connect(":memory:")
        try:
            glob = database.execute("SELECT ? GLOB ?", (text, sqlite_glob_pattern(pattern)))
            self.assertEqual(bool(glob.fetchone()[0]), expected)
            database.execute("PRAGMA case_sensitive_like = ON")
            like = database.execute("SELECT ? LIKE ? ESCAPE '!'", (text, like_pattern(pattern)))
            self.assertEqual(bool(like.fetchone()[0]), expected)
        finally:
            database.close()
