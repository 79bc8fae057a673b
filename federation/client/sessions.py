"""Where sessions of TLS are kept. What uses them is in `federation.client.tls`, and loaded late."""

from __future__ import annotations

from typing import Any, TypeAlias

from homeserver.cache import Cache

SessionCache: TypeAlias = Cache[str, tuple[Any, float]]
"""By the name that a certificate proved: the session (`OpenSSL.SSL.Session`), and when that was."""

_SESSION_BYTES = 12_000
"""About what a session takes, with the certificates that were shown."""


def session_cache() -> SessionCache:
    """A new one."""
    return Cache("tls_sessions", lambda name, _: len(name) + _SESSION_BYTES)
