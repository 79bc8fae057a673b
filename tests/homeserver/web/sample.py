"""A small set of endpoints and stand-ins, for the tests of routing and dispatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from twisted.internet.task import Clock

from homeserver.core import errors
from homeserver.core.ids import EventID, RoomAlias, RoomID, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.web.endpoint import (
    EMPTY,
    Auth,
    Empty,
    RawJson,
    Request,
    Requester,
    Response,
    endpoint,
)
from homeserver.web.router import Router
from tests.support.client import Client
from tests.support.log import CapturedLog


class Inner(msgspec.Struct):
    user: UserID
    level: Annotated[int, msgspec.Meta(ge=0)] = 0


class Body(msgspec.Struct):
    name: str
    inner: Inner | None = None
    kind: Literal["a", "b"] = "a"
    content: dict[str, Any] | None = None


class Echo(msgspec.Struct):
    name: str
    user: UserID | None = None


class Paging(msgspec.Struct, omit_defaults=True):
    from_: str | None = msgspec.field(name="from", default=None)
    limit: Annotated[int, msgspec.Meta(ge=0)] = 10
    via: list[ServerName] = []
    full: bool = False
    dir: Literal["b", "f"] = "b"


class Needed(msgspec.Struct):
    q: str


class Notes:
    """A service that the endpoints write to."""

    def __init__(self) -> None:
        self.written: list[Any] = []


BASE = "/_matrix/client/v3"


@endpoint("GET", "/_matrix/client/versions", auth=Auth.NONE)
async def versions() -> JsonObject:
    """The versions."""
    return {"versions": ["v1.1"]}


@endpoint("POST", f"{BASE}/echo", auth=Auth.NONE)
async def post_echo(body: Body, notes: Notes) -> Echo:
    """Answer with what was sent.

    And note it.
    """
    notes.written.append(body)
    return Echo(body.name, body.inner.user if body.inner else None)


@endpoint("POST", f"{BASE}/strict", auth=Auth.NONE, strict_json=True)
async def post_strict(body: Body) -> Empty:
    return EMPTY


@endpoint("PUT", f"{BASE}/raw/{{kind}}", auth=Auth.NONE)
async def put_raw(kind: str, body: JsonObject, notes: Notes) -> JsonObject:
    notes.written.append(body)
    return body


@endpoint("PUT", f"{BASE}/lenient", auth=Auth.NONE, lenient_json=True)
async def put_lenient(body: JsonObject) -> JsonObject:
    return body


@endpoint("POST", f"{BASE}/logout", auth=Auth.GUEST_OK, optional_body=True, locked_ok=True)
async def post_logout(body: JsonObject, notes: Notes) -> Empty:
    notes.written.append(body)
    return EMPTY


@endpoint("POST", f"{BASE}/bodyless", auth=Auth.NONE)
async def post_bodyless() -> Empty:
    return EMPTY


@endpoint("GET", f"{BASE}/page", auth=Auth.NONE)
async def get_page(query: Paging) -> Paging:
    return query


@endpoint("GET", f"{BASE}/needed", auth=Auth.NONE)
async def get_needed(query: Needed) -> Needed:
    return query


@endpoint("GET", f"{BASE}/account/whoami", auth=Auth.ACCESS_TOKEN)
async def whoami(requester: Requester) -> JsonObject:
    return {"user_id": requester.user_id}


@endpoint("GET", f"{BASE}/profile/{{user_id}}", auth=Auth.OPTIONAL_ACCESS_TOKEN)
async def get_profile(user_id: UserID, requester: Requester | None) -> JsonObject:
    return {"user_id": user_id, "asked_by": requester.user_id if requester else None}


@endpoint("GET", f"{BASE}/bridge", auth=Auth.APPSERVICE)
async def get_bridge(requester: Requester) -> JsonObject:
    return {"id": requester.appservice_id}


@endpoint("GET", "/_synapse/admin/v1/server", auth=Auth.ADMIN)
async def get_server() -> Empty:
    return EMPTY


@endpoint("PUT", f"{BASE}/send", auth=Auth.ACCESS_TOKEN, rate="message", refuse_suspended=True)
async def put_send(requester: Requester, notes: Notes) -> Empty:
    notes.written.append(requester.user_id)
    return EMPTY


@endpoint("POST", f"{BASE}/login", auth=Auth.NONE, rate="login")
async def post_login(body: JsonObject) -> Empty:
    return EMPTY


@endpoint("GET", f"{BASE}/rooms/{{room_id}}/event/{{event_id}}", auth=Auth.NONE)
async def get_event(room_id: RoomID, event_id: EventID) -> JsonObject:
    return {"room_id": room_id, "event_id": event_id}


@endpoint("GET", f"{BASE}/directory/room/{{room_alias}}", auth=Auth.NONE)
async def get_alias(room_alias: RoomAlias) -> JsonObject:
    return {"alias": room_alias}


@endpoint(
    "PUT",
    f"{BASE}/rooms/{{room_id}}/state/{{event_type}}/{{state_key}}",
    auth=Auth.NONE,
    also=(
        f"{BASE}/rooms/{{room_id}}/state/{{event_type}}",
        f"{BASE}/rooms/{{room_id}}/state/{{event_type}}/",
    ),
)
async def put_state(room_id: RoomID, event_type: str, state_key: str = "") -> JsonObject:
    return {"type": event_type, "state_key": state_key}


@endpoint("GET", "/_matrix/media/v3/config", auth=Auth.NONE)
async def get_media_config() -> JsonObject:
    return {"m.upload.size": 1}


@endpoint("GET", "/_matrix/key/v2/server", auth=Auth.NONE)
async def get_keys() -> RawJson:
    return RawJson(b'{"server_name":"a"}')


@endpoint("GET", "/_matrix/federation/v1/version", auth=Auth.NONE)
async def get_version() -> JsonObject:
    return {"server": {}}


@endpoint("PUT", "/_matrix/federation/v1/send/{txn_id}", auth=Auth.FEDERATION)
async def put_transaction(txn_id: str, origin: ServerName) -> JsonObject:
    return {"txn": txn_id, "origin": origin}


FAILURES: Mapping[str, Callable[[], BaseException]] = {
    "crash": lambda: RuntimeError("secret inside"),
    "key": lambda: KeyError("x"),
    "forbidden": errors.forbidden,
    "resource": lambda: errors.resource_limit_exceeded("mailto:admin@example.org"),
    "user": lambda: errors.user_limit_exceeded("https://example.org/limits", can_upgrade=True),
    "user_fixed": lambda: errors.user_limit_exceeded("https://example.org/limits"),
}


@endpoint("GET", f"{BASE}/fail/{{how}}", auth=Auth.NONE)
async def get_failure(how: str) -> Empty:
    raise FAILURES[how]()


@endpoint("GET", f"{BASE}/odd/{{how}}", auth=Auth.NONE)
async def get_odd(how: str, request: Request) -> Response:
    if how == "redirect":
        return Response(302, b"", {"Location": "https://example.org/"})
    if how == "none":
        return Response(404)
    return Response(201, {"address": request.remote_address}, {"X-Odd": "yes"})


@endpoint("POST", f"{BASE}/upload", auth=Auth.NONE, stream_body=True, max_body=100_000)
async def post_upload(request: Request) -> JsonObject:
    assert request.body_stream is not None
    return {"size": sum([len(chunk) async for chunk in request.body_stream])}


@endpoint("GET", f"{BASE}/wrong", auth=Auth.NONE)
async def get_wrong() -> Echo:
    return {"nmae": "x"}  # type: ignore[return-value]


ENDPOINTS = [
    versions,
    post_echo,
    post_strict,
    put_raw,
    put_lenient,
    post_logout,
    post_bodyless,
    get_page,
    get_needed,
    whoami,
    get_profile,
    get_bridge,
    get_server,
    put_send,
    post_login,
    get_event,
    get_alias,
    put_state,
    get_media_config,
    get_keys,
    get_version,
    put_transaction,
    get_failure,
    get_odd,
    post_upload,
    get_wrong,
]

TOKENS = {
    "alice": Requester(UserID("@alice:example.org"), "DEVICE"),
    "guest": Requester(UserID("@1:example.org"), "GUEST", is_guest=True),
    "admin": Requester(UserID("@admin:example.org"), "ADMIN", is_admin=True),
    "bridge": Requester(UserID("@irc:example.org"), appservice_id="irc", is_rate_limited=False),
    "locked": Requester(UserID("@locked:example.org"), "D", is_locked=True),
    "suspended": Requester(UserID("@suspended:example.org"), "D", is_suspended=True),
}


class Tokens:
    """Knows the tokens above."""

    async def authenticate(self, token: str, request: Request) -> Requester:
        if token not in TOKENS:
            raise errors.unknown_token()
        return TOKENS[token]


class Signatures:
    """Believes every origin."""

    async def authenticate(self, request: Request) -> ServerName:
        origin = request.header("Authorization")
        if origin is None:
            raise errors.MatrixError(401, "M_FORBIDDEN", "The signature is missing.")
        return ServerName(origin)


class Seen:
    """Remembers what an observer is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int, float]] = []

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        self.requests.append((endpoint, method, status, seconds))


class Sample:
    """A router of the endpoints above, and all that it was given."""

    def __init__(self, **options: Any) -> None:
        self.clock = options.pop("clock", None) or Clock()
        self.log = CapturedLog()
        self.notes = Notes()
        self.seen = Seen()
        self.router = Router(
            ENDPOINTS,
            {Notes: self.notes},
            Tokens(),
            clock=self.clock,
            log=self.log.logger,
            federation_authenticator=Signatures(),
            observer=self.seen,
            **options,
        )
        self.client = Client(self.router)
