"""How an endpoint is declared.

    @endpoint("PUT", "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}",
              auth=Auth.ACCESS_TOKEN, rate="write")
    async def put_tag(requester: Requester, user_id: UserID, room_id: RoomID, tag: str,
                      body: TagInfo, account_data: AccountData) -> Empty: ...

The decorator records an `EndpointDeclaration` on the function and changes nothing else, so
that tests may call the function directly. A module lists `ENDPOINTS = [put_tag, ...]`. The
names of parameters decide what they are given (see `homeserver.web.schema`):

- a name in the path: `str`, `int` or an identifier type with `parse`
- `requester`: `Requester` or `Requester | None`; `origin`: the `ServerName` of a federation request
- `body`: a `msgspec.Struct`, or `JsonObject` for raw objects
- `query`: a `msgspec.Struct`
- `request`: the `Request`
- any other: the service of the annotated type
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

from homeserver.web.request import Authenticator, FederationAuthenticator, Request, Requester
from homeserver.web.responses import EMPTY, Empty, RawJson, Response

__all__ = [
    "EMPTY",
    "Auth",
    "Authenticator",
    "Empty",
    "EndpointDeclaration",
    "FederationAuthenticator",
    "RawJson",
    "Request",
    "Requester",
    "Response",
    "declaration_of",
    "endpoint",
]

Function = TypeVar("Function", bound=Callable[..., Awaitable[object]])

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"})
_PARAMETER = re.compile(r"\{([a-z_][a-z0-9_]*)(\*?)\}")


class Auth(Enum):
    """Who may call an endpoint."""

    NONE = "none"
    ACCESS_TOKEN = "access token"
    """A user; guests are refused (403 M_GUEST_ACCESS_FORBIDDEN)."""
    GUEST_OK = "access token, guests too"
    OPTIONAL_ACCESS_TOKEN = "access token if sent"
    """`requester` is None without a token; a token that is sent must be good."""
    APPSERVICE = "application service"
    FEDERATION = "server signature"
    ADMIN = "server administrator"


@dataclass(frozen=True, slots=True, eq=False)
class EndpointDeclaration:
    """Everything that is known of an endpoint before start-up. See `endpoint`.

    A function has one: it is equal to itself alone, which makes it a quick key.
    """

    method: str
    path: str
    function: Callable[..., Awaitable[object]]
    auth: Auth
    rate: str | None
    also: tuple[str, ...]
    optional_body: bool
    lenient_json: bool
    strict_json: bool
    max_body: int | str | None
    stream_body: bool
    long_poll: bool
    locked_ok: bool
    refuse_suspended: bool
    returns: Any

    @property
    def name(self) -> str:
        """The name in metrics, logs and documentation."""
        return self.function.__name__

    @property
    def paths(self) -> tuple[str, ...]:
        """All templates it answers under, the declared one first.

        `/_matrix/client/v3` and `/_matrix/media/v3` answer under r0 too (clients from before
        version 1.1 of the specification), media also under v1, the others under the still older
        api/v1.
        """
        found: dict[str, None] = {}
        for path in (self.path, *self.also):
            found[path] = None
            for version in ("r0", "v1"):
                if path.startswith("/_matrix/media/v3/"):
                    found[path.replace("/v3/", f"/{version}/", 1)] = None
            if path.startswith("/_matrix/client/v3/"):
                found[path.replace("/v3/", "/r0/", 1)] = None
                found[path.replace("/v3/", "/api/v1/", 1)] = None
        return tuple(found)


def endpoint(
    method: str,
    path: str,
    *,
    auth: Auth,
    rate: str | None = None,
    also: tuple[str, ...] = (),
    optional_body: bool = False,
    lenient_json: bool = False,
    strict_json: bool = False,
    max_body: int | str | None = None,
    stream_body: bool = False,
    long_poll: bool = False,
    locked_ok: bool = False,
    refuse_suspended: bool = False,
    returns: Any = None,
) -> Callable[[Function], Function]:
    """Declare a coroutine function as an endpoint.

    `path` and `also` are templates with `{name}` for one segment and `{name*}` for the rest of
    the path. A parameter missing from one of `also` needs a default value in the function. A
    trailing slash is another path: declare it in `also`.
    `rate`: the class of rate limit. `optional_body`: an empty body is `{}`.
    `lenient_json`: a `JsonObject` body may hold floats and large integers; `strict_json`: a
    struct body may not, anywhere in it (room versions 6 and up, "Canonical JSON").
    `max_body` in bytes, or the name of a limit that the server sets; None for its default.
    `stream_body`: the function reads
    `request.body_stream` itself. `long_poll`: may wait; cancelled when the client goes away.
    `locked_ok`: locked accounts may call it; `refuse_suspended`: suspended ones may not.
    `returns`: the type of the JSON answer where the annotation does not say it.
    Raises ValueError for a template that is not valid.
    """
    if method not in METHODS:
        raise ValueError(f"{method} is not a method that endpoints take")
    if stream_body and optional_body:
        raise ValueError(f"{path}: a streamed body cannot be optional JSON")
    for template in (path, *also):
        template_parameters(template)

    def declare(function: Function) -> Function:
        function.__dict__["__endpoint__"] = EndpointDeclaration(
            method=method,
            path=path,
            function=function,
            auth=auth,
            rate=rate,
            also=tuple(also),
            optional_body=optional_body,
            lenient_json=lenient_json,
            strict_json=strict_json,
            max_body=max_body,
            stream_body=stream_body,
            long_poll=long_poll,
            locked_ok=locked_ok,
            refuse_suspended=refuse_suspended,
            returns=returns,
        )
        return function

    return declare


def declaration_of(function: object) -> EndpointDeclaration:
    """The declaration of a decorated function. Raises TypeError if it has none."""
    declaration = getattr(function, "__endpoint__", None)
    if not isinstance(declaration, EndpointDeclaration):
        raise TypeError(f"{function!r} is not declared with @endpoint")
    return declaration


@lru_cache(2048)
def template_parameters(template: str) -> tuple[str, ...]:
    """The names of a template's parameters, in order. Raises ValueError if it is not valid."""
    if not template.startswith("/"):
        raise ValueError(f"{template!r} does not start with a slash")
    names: list[str] = []
    segments = template[1:].split("/")
    for position, segment in enumerate(segments):
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            if any(character in segment for character in "{}%?#"):
                raise ValueError(f"{template!r} has a bad segment {segment!r}")
            continue
        if match[2] and position != len(segments) - 1:
            raise ValueError(f"{template!r} goes on after {segment!r}")
        if match[1] in names:
            raise ValueError(f"{template!r} names {match[1]!r} twice")
        names.append(match[1])
    return tuple(names)
