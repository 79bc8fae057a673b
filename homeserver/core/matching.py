"""Globs and dot-separated property paths.

Rules (Appendices, "Glob-style matching", "Dot-separated property paths"):

- in a glob `*` stands for any run of characters, `?` for exactly one, nothing else is special,
  and the whole text must match;
- in a path `\\.` is a dot and `\\\\` a backslash within a name; other escapes stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_STARS = re.compile(r"\*+")
_PATH_PART = re.compile(r"\\([.\\])|(\.)|([^.\\]+|\\)")

MISSING: Any = object()
"""What `get_path` returns when there is no such property; distinct from None, which JSON has."""


def glob_to_regex(glob: str, *, ignore_case: bool = False, words: bool = False) -> re.Pattern[str]:
    """The regular expression of a glob; use its `search`, it brings its own anchors.

    With `words` the glob need not match the whole text but a run of it between word boundaries:
    the ends of the text, or characters other than ``A-Z a-z 0-9 _`` (Client-Server API, push
    rules on `content.body`).
    """
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    segments = ["".join(map(_literal, part)) for part in _STARS.split(glob)]
    if words:
        source = r"(?:\A|(?<=[^A-Za-z0-9_]))" + ".*?".join(segments) + r"(?:\Z|(?=[^A-Za-z0-9_]))"
        return re.compile(source, flags)
    first, *rest = segments
    if not rest:
        return re.compile(rf"\A{first}\Z", flags)
    *middle, last = rest
    # The first place where a middle part fits is as good as any later one, and atomic groups
    # keep the expression from trying them: no glob takes more than linear time per part.
    skipped = "".join(f"(?>.*?{part})" for part in middle)
    return re.compile(rf"\A{first}{skipped}.*{last}\Z", flags)


def glob_matches(glob: str, text: str, *, ignore_case: bool = False) -> bool:
    """Does the whole of `text` match `glob`?"""
    return glob_to_regex(glob, ignore_case=ignore_case).search(text) is not None


def split_path(path: str) -> list[str]:
    """The property names in a dot-separated path, unescaped."""
    names = [""]
    for escaped, dot, plain in _PATH_PART.findall(path):
        if dot:
            names.append("")
        else:
            names[-1] += escaped or plain
    return names


def join_path(names: Sequence[str]) -> str:
    """The dot-separated path of these property names, escaped."""
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)


def get_path(obj: Any, path: Sequence[str]) -> Any:
    """The property of a JSON object at `path` (names as from `split_path`), or `MISSING`."""
    for name in path:
        if not isinstance(obj, Mapping) or name not in obj:
            return MISSING
        obj = obj[name]
    return obj


def _literal(character: str) -> str:
    return "." if character == "?" else re.escape(character)
