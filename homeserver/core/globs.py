"""Glob-style matching in linear time.

Appendices, "Glob-style matching": `*` matches zero or more characters, `?` exactly one, nothing
else is special, and the whole string has to match. Push rules on `content.body` match any
substring between word boundaries instead.

Patterns come from strangers (server ACLs, push rules, filters), so nothing here backtracks: a
pattern is split at its `*`, and each piece is searched for once, from left to right. The leftmost
match of a piece is always as good as a later one, because the `*` before it absorbs the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

MAX_GLOB_LENGTH = 512
"""Longest pattern in characters, runs of `*` counted once. A longer one matches nothing: what
globs are matched against by rule (server names, user and room IDs) has at most 255."""

_STARS = re.compile(r"\*+")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_NOT_WORD = re.compile(r"[^A-Za-z0-9_]")


def is_word_boundary(text: str, index: int) -> bool:
    """Whether a word can start or end at `index`: not between two characters of `[A-Za-z0-9_]`."""
    if index <= 0 or index >= len(text):
        return True
    return text[index - 1] not in _WORD or text[index] not in _WORD


class _Literal:
    """A piece without wildcards."""

    __slots__ = ("length", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.length = len(text)

    def at(self, text: str, index: int) -> bool:
        return text.startswith(self.text, index)

    def find(self, text: str, start: int) -> int:
        return text.find(self.text, start)

    def starting_words(self, text: str) -> Iterator[int]:
        """Occurrences whose start is a word boundary."""
        index = 0
        while (found := text.find(self.text, index)) >= 0:
            index = found + 1
            if is_word_boundary(text, found):
                yield found
            else:
                # Both sides of `found` are word characters: no start before the word ends.
                index = _word_end(text, found)

    def ends_word(self, text: str, start: int) -> bool:
        """Whether some occurrence from `start` on has a word boundary for its end."""
        while (found := text.find(self.text, start)) >= 0:
            end = found + self.length
            if is_word_boundary(text, end):
                return True
            start = max(found + 1, _word_end(text, end) - self.length)
        return False


class _Wild:
    """A piece with `?` in it: searched for with one bit per character of the piece."""

    __slots__ = ("_accept", "_any", "_masks", "_parts", "length")

    def __init__(self, piece: str) -> None:
        self.length = len(piece)
        self._any = 0
        masks: dict[str, int] = {}
        for index, char in enumerate(piece):
            if char == "?":
                self._any |= 1 << index
            else:
                masks[char] = masks.get(char, 0) | 1 << index
        self._parts = [(part.start(), part.group()) for part in re.finditer(r"[^?]+", piece)]
        self._masks = {char: mask | self._any for char, mask in masks.items()}
        self._accept = 1 << (self.length - 1)

    def at(self, text: str, index: int) -> bool:
        if index + self.length > len(text):
            return False
        return all(text.startswith(part, index + offset) for offset, part in self._parts)

    def find(self, text: str, start: int) -> int:
        return next(self._all(text, start), -1)

    def starting_words(self, text: str) -> Iterator[int]:
        return (found for found in self._all(text, 0) if is_word_boundary(text, found))

    def ends_word(self, text: str, start: int) -> bool:
        return any(is_word_boundary(text, found + self.length) for found in self._all(text, start))

    def _all(self, text: str, start: int) -> Iterator[int]:
        """Every occurrence: bit i of `state` says that the piece's first i+1 characters match."""
        state, masks, other, accept = 0, self._masks, self._any, self._accept
        for index in range(start, len(text)):
            state = (state << 1 | 1) & masks.get(text[index], other)
            if state & accept:
                yield index - self.length + 1


class Glob:
    """A compiled pattern; make one with `compile_glob`."""

    __slots__ = ("_ignore_case", "_never", "_pieces")

    def __init__(self, pattern: str, *, ignore_case: bool, question_mark: bool) -> None:
        pattern = _STARS.sub("*", pattern)
        self._never = len(pattern) > MAX_GLOB_LENGTH
        self._ignore_case = ignore_case
        if ignore_case:
            pattern = pattern.lower()
        self._pieces: list[_Literal | _Wild] = []
        for piece in [""] if self._never else pattern.split("*"):
            wild = question_mark and "?" in piece
            self._pieces.append(_Wild(piece) if wild else _Literal(piece))

    @property
    def is_literal(self) -> bool:
        """Whether the pattern matches nothing but its own text."""
        return not self._never and len(self._pieces) == 1 and isinstance(self._pieces[0], _Literal)

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole of `text`."""
        if self._never:
            return False
        if self._ignore_case:
            text = text.lower()
        first, last = self._pieces[0], self._pieces[-1]
        if not first.at(text, 0):
            return False
        if first is last:
            return first.length == len(text)
        end = self._after_middle(text, first.length)
        tail = len(text) - last.length
        return end is not None and tail >= end and last.at(text, tail)

    def matches_words(self, text: str) -> bool:
        """Whether the pattern matches a substring that starts and ends at a word boundary."""
        if self._never:
            return False
        if self._ignore_case:
            text = text.lower()
        first, last = self._pieces[0], self._pieces[-1]
        for start in first.starting_words(text):
            end = start + first.length
            if first is not last:
                after = self._after_middle(text, end)
                # an empty last piece: the `*` before it reaches to the end of the text
                return after is not None and (last.length == 0 or last.ends_word(text, after))
            if is_word_boundary(text, end):
                return True
        return False

    def _after_middle(self, text: str, index: int) -> int | None:
        """Where the leftmost matches of the inner pieces end; None if one is missing."""
        for piece in self._pieces[1:-1]:
            found = piece.find(text, index)
            if found < 0:
                return None
            index = found + piece.length
        return index


def contains_words(words: str, text: str) -> bool:
    """Whether `text` has `words`, in any case, between two word boundaries."""
    words, text = words.lower(), text.lower()
    starts = _Literal(words).starting_words(text)
    return any(is_word_boundary(text, start + len(words)) for start in starts)


def _word_end(text: str, index: int) -> int:
    """Where the word around `index` ends."""
    gap = _NOT_WORD.search(text, index)
    return gap.start() if gap else len(text)


@lru_cache(maxsize=4096)
def _cached(pattern: str, ignore_case: bool, question_mark: bool) -> Glob:
    return Glob(pattern, ignore_case=ignore_case, question_mark=question_mark)


def compile_glob(pattern: str, *, ignore_case: bool = True, question_mark: bool = True) -> Glob:
    """The matcher of a pattern.

    Parameters: `ignore_case` compares lower-case forms; without `question_mark` only `*` is
    special (event types in filters). Patterns longer than `MAX_GLOB_LENGTH` match nothing.
    """
    if len(pattern) > MAX_GLOB_LENGTH:
        # not cached: the cache must not hold what strangers make arbitrarily long
        return Glob(pattern, ignore_case=ignore_case, question_mark=question_mark)
    return _cached(pattern, ignore_case, question_mark)


def glob_matches(pattern: str, text: str, *, ignore_case: bool = True) -> bool:
    """Whether the pattern matches the whole of `text`."""
    return compile_glob(pattern, ignore_case=ignore_case).matches(text)


def like_pattern(pattern: str) -> str:
    """The SQL `LIKE` form of a pattern in which only `*` is special, for `ESCAPE '!'`.

    SQLite's `LIKE` ignores case: there use `sqlite_glob_pattern` with `GLOB`.
    """
    escaped = re.sub(r"[!%_]", lambda found: "!" + found.group(), pattern)
    return _STARS.sub("%", escaped)


def sqlite_glob_pattern(pattern: str) -> str:
    """The SQLite `GLOB` form of a pattern in which only `*` is special."""
    return _STARS.sub("*", re.sub(r"[?\[]", lambda found: f"[{found.group()}]", pattern))
