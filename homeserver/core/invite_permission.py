"""Whose invites a user takes: `m.invite_permission_config`.

Client-server API, "Invite permission"; lists of users and servers are MSC4155. The lists are
globs, and whoever writes them is not trusted: matching is linear in their size, and they are
compiled once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Any

from homeserver.core.globs import glob_matches
from homeserver.core.ids import ServerName, domain_of
from homeserver.core.types import JsonObject

_Lists = tuple[tuple[str, ...], ...]


class Verdict(Enum):
    """What becomes of an invite."""

    ALLOW = "allow"
    IGNORE = "ignore"
    """It is taken, but the user is not told of it."""
    BLOCK = "block"
    """It is refused."""


_ORDER = (
    ("allowed_users", Verdict.ALLOW),
    ("ignored_users", Verdict.IGNORE),
    ("blocked_users", Verdict.BLOCK),
    ("allowed_servers", Verdict.ALLOW),
    ("ignored_servers", Verdict.IGNORE),
    ("blocked_servers", Verdict.BLOCK),
)
"""The first list that has the inviter decides."""
_USER_LISTS = 3


class InvitePermission:
    """The configuration of one user. Make one with `InvitePermission.of`."""

    def __init__(self, lists: _Lists) -> None:
        self._exact = [frozenset(map(str.lower, filter(_is_exact, each))) for each in lists]
        self._globs = [tuple(each for each in names if not _is_exact(each)) for names in lists]

    @staticmethod
    def of(content: JsonObject | None) -> InvitePermission:
        """The configuration that some content makes; what is malformed allows everybody."""
        return _compiled(_lists(content or {}))

    @property
    def allows_all(self) -> bool:
        """Whether there is nothing to decide."""
        return not any(self._exact) and not any(self._globs)

    def verdict(self, inviter: str) -> Verdict:
        """What becomes of an invite of this user."""
        user_id, host = inviter.lower(), ServerName(domain_of(inviter)).host.lower()
        for place, (_, verdict) in enumerate(_ORDER):
            text = user_id if place < _USER_LISTS else host
            if text in self._exact[place]:
                return verdict
            if any(glob_matches(glob, text) for glob in self._globs[place]):
                return verdict
        return Verdict.ALLOW


def _is_exact(pattern: str) -> bool:
    return "*" not in pattern and "?" not in pattern


def _lists(content: JsonObject) -> _Lists:
    nothing: _Lists = ((),) * len(_ORDER)
    if content.get("default_action") == "block":
        return (*nothing[:-1], ("*",))
    if content.get("enabled", True) is not True:
        return nothing
    found = [content.get(name, []) for name, _ in _ORDER]
    return tuple(map(tuple, found)) if all(map(_is_texts, found)) else nothing


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


@lru_cache(maxsize=128)
def _compiled(lists: _Lists) -> InvitePermission:
    return InvitePermission(lists)


def strictest(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several verdicts the one that lets the least through."""
    return max(verdicts, key=list(Verdict).index, default=Verdict.ALLOW)
