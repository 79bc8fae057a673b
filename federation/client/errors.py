"""Faults of other servers.

None of these is a `MatrixError`: what another server did wrong is never shown to a client as
this server's own answer unless a service decides so.
"""

from __future__ import annotations

from homeserver.core.types import JsonObject


class RemoteError(Exception):
    """A request to another server had no usable answer. `destination` is that server's name."""

    def __init__(self, destination: str, reason: str) -> None:
        super().__init__(f"{destination}: {reason}")
        self.destination = destination
        self.reason = reason


class Unreachable(RemoteError):
    """No answer at all: discovery, connection, TLS or the wait for the answer failed."""


class RemoteTimeout(Unreachable):
    """The answer was not complete in time."""


class InvalidDestination(Unreachable):
    """The destination is this server itself, or not a server name. Nothing was sent."""


class BadAnswer(RemoteError):
    """An answer that came, but breaks the rules: not JSON, too large, not HTTP."""


class RemoteHttpError(RemoteError):
    """The other server answered with another status than 2xx.

    `errcode` and `error` are the standard error's, or None where the body is not one; `body` is
    the JSON object that came, `{}` if none did. `retry_after_ms` is how long the server asks to
    be left alone.
    """

    def __init__(
        self,
        destination: str,
        status: int,
        body: JsonObject | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        self.status = status
        self.body: JsonObject = body if body is not None else {}
        self.errcode = _text(self.body.get("errcode"))
        self.error = _text(self.body.get("error"))
        self.retry_after_ms = retry_after_ms
        said = " ".join(part for part in (self.errcode, self.error) if part)
        super().__init__(destination, f"answered {status} {said}".rstrip()[:300])


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class BadCaFile(ValueError):
    """A file of certificate authorities cannot be used; the message names it."""
