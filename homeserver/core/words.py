"""The words of a text, for finding it again.

1. Compatibility forms, accents and case do not matter: "Café" and "CAFE" are one word.
2. Where words are written with spaces between them, a word is a run of letters, digits and marks.
3. Other scripts (Chinese, Japanese, Thai ...) and Korean, which glues particles to its words, give
   single characters and pairs of neighbours.
4. A symbol such as an emoji is a word of its own. All else only separates.

No word holds a space, a quote or ASCII punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import groupby

MAX_WORD = 64
"""Characters of a word that count."""
MAX_QUERY = 1000
"""Characters of a query that count."""
MAX_QUERY_WORDS = 48
"""Different words of a query that count."""
MIN_PREFIX = 3
"""Letters from which on the word of a query also stands for longer words."""

_ASCII = re.compile("[a-z0-9]+")

# Blocks of scripts that are written without spaces, and Hangul.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),
    (0x3021, 0x4DBF),  # Kana, Bopomofo, Hangul compatibility, CJK extension A
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)


class _Kind(Enum):
    BREAK = 0
    WORD = 1
    UNSPACED = 2
    SYMBOL = 3


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: all of it must be there.

    `words` whole, `prefixes` as beginnings of words, `phrases` as they stand in the folded text.
    """

    words: tuple[str, ...]
    prefixes: tuple[str, ...]
    phrases: tuple[str, ...]
    highlights: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.words or self.prefixes)

    def in_text(self, text: str) -> bool:
        """Whether a text has it all."""
        folded = fold(text)
        if not all(phrase in folded for phrase in self.phrases):
            return False
        found = set(words(text))
        if not found.issuperset(self.words):
            return False
        return all(any(word.startswith(each) for word in found) for each in self.prefixes)


def fold(text: str) -> str:
    """A text without what does not matter."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join([char for char in apart if not "\u0300" <= char <= "\u036f"])
    return unicodedata.normalize("NFC", bare).casefold()


def words(text: str) -> list[str]:
    """The words of a text, in order; a word comes as often as it is there."""
    if text.isascii():
        return [word[:MAX_WORD] for word in _ASCII.findall(text.lower())]
    found: list[str] = []
    for kind, run in _runs(text):
        if kind is _Kind.UNSPACED:
            found += run
            found += [run[i : i + 2] for i in range(len(run) - 1)]
        elif kind is _Kind.SYMBOL:
            found += run
        else:
            found.append(run[:MAX_WORD])
    return found


def query(text: str) -> Query:
    """What somebody looks for who types this. Nothing in it has a special meaning."""
    text = text[:MAX_QUERY]
    whole: dict[str, None] = {}
    prefixes: dict[str, None] = {}
    phrases: dict[str, None] = {}
    highlights: dict[str, None] = {}
    for kind, run in _runs(text):
        if len(whole) + len(prefixes) >= MAX_QUERY_WORDS:
            break
        highlights[run] = None
        if kind is _Kind.UNSPACED:
            phrases[run] = None
            pairs = [run[i : i + 2] for i in range(len(run) - 1)] or [run]
            whole |= dict.fromkeys(pairs[:MAX_QUERY_WORDS])
        elif kind is _Kind.SYMBOL:
            whole |= dict.fromkeys(run[:MAX_QUERY_WORDS])
        elif len(run) >= MIN_PREFIX and not any(char.isdigit() for char in run):
            prefixes[run[:MAX_WORD]] = None
        else:
            whole[run[:MAX_WORD]] = None
    return Query(tuple(whole), tuple(prefixes), tuple(phrases), tuple(highlights))


def _runs(text: str) -> Iterator[tuple[_Kind, str]]:
    for kind, chars in groupby(fold(text), _kind):
        if kind is not _Kind.BREAK:
            yield kind, "".join(chars)


@lru_cache(maxsize=16384)
def _kind(char: str) -> _Kind:
    code = ord(char)
    category = unicodedata.category(char)
    if category[0] not in "LNM":
        # Selectors of variants and joiners of emoji only separate.
        return _Kind.SYMBOL if category == "So" else _Kind.BREAK
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return _Kind.BREAK
    if code >= 0x0E00 and any(first <= code <= last for first, last in _UNSPACED):
        return _Kind.UNSPACED
    return _Kind.WORD
