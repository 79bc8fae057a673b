"""Server access control lists: `m.room.server_acl`.

Client-server API, "Server Access Control Lists (ACLs) for rooms". The lists come from strangers:
matching is linear in their size (see `homeserver.core.globs`), and a list is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from homeserver.core.globs import Glob, compile_glob
from homeserver.core.ids import ServerName
from homeserver.core.types import JsonObject

ACL_TYPE = "m.room.server_acl"


class _Patterns:
    """Globs against which host names are matched; those without wildcards in one look-up."""

    __slots__ = ("_exact", "_globs")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._globs: list[Glob] = []
        for pattern in patterns:
            if "*" in pattern or "?" in pattern:
                self._globs.append(compile_glob(pattern))
            else:
                self._exact.add(pattern.lower())

    def match(self, host: str) -> bool:
        """Whether some pattern matches a host that is in lower case."""
        return host in self._exact or any(glob.matches(host) for glob in self._globs)


class ServerAcl:
    """The compiled form of an ACL. Make one with `ServerAcl.of`."""

    __slots__ = ("_allow", "_deny", "_ip_literals")

    def __init__(self, allow: Iterable[str], deny: Iterable[str], ip_literals: bool) -> None:
        self._allow = _Patterns(allow)
        self._deny = _Patterns(deny)
        self._ip_literals = ip_literals

    @staticmethod
    def of(content: Any) -> ServerAcl:
        """The ACL that the content of an event sets, from a cache where it is known.

        Lists that are none count as empty, entries that are no strings as absent;
        `allow_ip_literals` is true unless it is the boolean false. So what is malformed denies.
        """
        if not isinstance(content, dict):
            content = {}
        return _compiled(
            _strings(content.get("allow")),
            _strings(content.get("deny")),
            content.get("allow_ip_literals") is not False,
        )

    def allows(self, server: str) -> bool:
        """Whether the server of this name (port ignored, any case) may take part in the room."""
        name = ServerName(server)
        if not self._ip_literals and name.is_ip_address:
            return False
        host = name.host.lower()
        return not self._deny.match(host) and self._allow.match(host)


def is_allowed(server: str, content: JsonObject | None) -> bool:
    """Whether a server may take part in a room.

    Parameters: `content` of the room's current `m.room.server_acl` event (empty state key), None
    if there is no such event, which allows every server.
    """
    return content is None or ServerAcl.of(content).allows(server)


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(entry for entry in value if isinstance(entry, str))


@lru_cache(maxsize=128)
def _compiled(allow: tuple[str, ...], deny: tuple[str, ...], ip_literals: bool) -> ServerAcl:
    return ServerAcl(allow, deny, ip_literals)
