"""From a request to its response: find the endpoint, authenticate, limit, call, encode.

The one place where errors become responses (client-server API, "Standard error response").
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import (
    MatrixError,
    forbidden,
    guest_access_forbidden,
    internal,
    method_not_allowed,
    missing_token,
    unavailable,
    unrecognized,
    user_locked,
    user_suspended,
)
from homeserver.core.ids import ServerName
from homeserver.telemetry.logs import REQUEST_ID, Logger
from homeserver.web.endpoint import Auth, EndpointDeclaration, declaration_of
from homeserver.web.limits import RateLimiter, address_key
from homeserver.web.request import (
    Authenticator,
    BodyPlan,
    FederationAuthenticator,
    Request,
    Requester,
)
from homeserver.web.responses import (
    CORS_HEADERS,
    JSON_CORS_HEADERS,
    JSON_HEADERS,
    JSON_TYPE,
    RawJson,
    Response,
    encode_json,
    error_response,
)
from homeserver.web.routes import Route, RouteTable
from homeserver.web.signature import Caller
from homeserver.web.tokens import sent_token
from homeserver.web.turns import Turns

DEFAULT_MAX_BODY = 4 * 1024 * 1024
"""Largest body in bytes where an endpoint does not say otherwise."""

_CLOSED_REQUEST = 499
_SERVERS_ONLY = ("/_matrix/federation/", "/_matrix/key/")

WRITING = frozenset({"message", "join", "invite", "create_room", "registration", "upload"})
"""Classes of requests that put something new into rooms or onto the server."""


class RequestObserver(Protocol):
    """Told of each answer; `endpoint` is the declared path, or "unknown". Times in seconds.

    Status 499: the client went away while its request waited.
    """

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None: ...


class _Endpoint:
    """A declared endpoint with its compiled caller, and what is asked of it for each request."""

    __slots__ = (
        "caller",
        "declaration",
        "from_server",
        "is_writing",
        "name",
        "plan",
        "rate",
        "turns",
        "wants_token",
    )

    def __init__(
        self,
        declaration: EndpointDeclaration,
        services: Mapping[Any, Any],
        plan: BodyPlan,
        turns: Turns | None,
    ) -> None:
        self.declaration = declaration
        self.caller = Caller(declaration, services)
        self.name = declaration.path
        self.plan = plan
        self.rate = declaration.rate
        self.turns = turns
        self.is_writing = declaration.rate in WRITING
        self.from_server = declaration.auth is Auth.FEDERATION
        self.wants_token = declaration.auth not in (Auth.FEDERATION, Auth.NONE)


@lru_cache(maxsize=4)
def _routes(
    endpoints: tuple[object, ...],
) -> tuple[tuple[EndpointDeclaration, ...], RouteTable[int]]:
    """The declarations of endpoints, and by path the position of each among them.

    Read once for all servers of a process. Raises ValueError if two answer the same requests.
    """
    declarations = tuple(map(declaration_of, endpoints))
    table: RouteTable[int] = RouteTable()
    for position, declaration in enumerate(declarations):
        for template in declaration.paths:
            table.add(declaration.method, template, position)
    return declarations, table


class Router:
    """Answers requests with a set of endpoints.

    `endpoints`: functions declared with `@endpoint`; `services`: type to instance, for their
    parameters. `observer` is told of each answer (`homeserver.telemetry.metrics.Metrics` is
    one). `turns`: for classes of rate limits of which few are answered at a time.
    `unavailable` are errors that mean that something the server needs is away (503).
    `body_limits` are the sizes in bytes that endpoints name as their `max_body`.
    `query_tokens` says which tokens are accepted in `?access_token=` too, where versions of the
    specification before 1.19 had them.
    Raises TypeError, LookupError or ValueError for endpoints that do not fit.
    """

    def __init__(
        self,
        endpoints: Iterable[object],
        services: Mapping[Any, Any],
        authenticator: Authenticator,
        *,
        clock: IReactorTime,
        log: Logger,
        federation_authenticator: FederationAuthenticator | None = None,
        rate_limiter: RateLimiter | None = None,
        turns: Mapping[str, Turns] | None = None,
        observer: RequestObserver | None = None,
        refuse_writing: Callable[[], MatrixError] | None = None,
        unavailable: tuple[type[Exception], ...] = (),
        query_tokens: Callable[[str], bool] | None = None,
        body_limits: Mapping[str, int] | None = None,
        max_body: int = DEFAULT_MAX_BODY,
    ) -> None:
        self._authenticator = authenticator
        self._federation_authenticator = federation_authenticator
        self._rate_limiter = rate_limiter
        self._turns = turns or {}
        self._clock = clock
        self._log = log
        self._observer = observer
        self._refuse_writing = refuse_writing
        self._unavailable = unavailable
        self._query_tokens = query_tokens
        self._max_body = max_body
        self._body_limits = body_limits or {}
        self._ids = count(1)
        self._id_prefix = secrets.token_hex(3)
        self.running = 0
        """Requests being answered now, waiting ones included."""
        self.declarations, self._table = _routes(tuple(endpoints))
        self._endpoints = [self._endpoint(each, services) for each in self.declarations]

    def _endpoint(self, declaration: EndpointDeclaration, services: Mapping[Any, Any]) -> _Endpoint:
        limiter = self._rate_limiter
        if limiter is not None and declaration.rate not in (None, *limiter.classes):
            raise LookupError(f"{declaration.name}: no rate limit is named {declaration.rate!r}")
        if declaration.auth is Auth.FEDERATION and self._federation_authenticator is None:
            raise LookupError(f"{declaration.name}: nothing here authenticates other servers")
        if isinstance(declaration.max_body, str) and declaration.max_body not in self._body_limits:
            raise LookupError(f"{declaration.name}: no size is named {declaration.max_body!r}")
        size = declaration.max_body
        max_bytes = self._body_limits[size] if isinstance(size, str) else size
        plan = BodyPlan(max_bytes or self._max_body, declaration.stream_body)
        turns = self._turns.get(declaration.rate or "")
        return _Endpoint(declaration, services, plan, turns)

    def declaration_for(self, method: str, path: str) -> EndpointDeclaration | None:
        """The declaration that answers a request, or None."""
        found = self._table.find(method, path)
        return None if found.target is None else self.declarations[found.target]

    def body_plan(self, request: Request) -> BodyPlan:
        """For the transport, once the head is read: how much body to take, and how."""
        try:
            return self._route(request).target.plan
        except MatrixError:
            return BodyPlan(self._max_body, stream=False)

    async def handle(self, request: Request) -> Response:
        """The response to a request, with all headers but those of the transport.

        Never raises, except CancelledError when the transport cancelled it
        (`request.is_cancelled`).
        """
        started = self._clock.seconds()
        request.request_id = f"{self._id_prefix}-{next(self._ids):x}"
        REQUEST_ID.set(request.request_id)
        status = _CLOSED_REQUEST
        self.running += 1
        try:
            try:
                called = await self._call(request)
                response = _render(await called)
            except MatrixError as error:
                response = error_response(error)
            except Exception as error:
                if isinstance(error, CancelledError) and request.is_cancelled:
                    raise
                response = error_response(self._failed(request, error))
            if not request.path.startswith(_SERVERS_ONLY):
                if response.headers is JSON_HEADERS:
                    response.headers = JSON_CORS_HEADERS
                else:
                    response.headers.update(CORS_HEADERS)
            status = response.status
            return response
        finally:
            self.running -= 1
            seconds = self._clock.seconds() - started
            if self._observer is not None:
                name = "unknown" if request.route is None else request.route.target.name
                self._observer.request(name, request.method, status, seconds)
            self._log.debug(
                "request", method=request.method, path=request.path, status=status, seconds=seconds
            )
            # Not reset by token: an abandoned coroutine ends in another context.
            REQUEST_ID.set(None)

    def _failed(self, request: Request, error: Exception) -> MatrixError:
        """Log an error that is not an answer; returns the one to answer with."""
        if isinstance(error, self._unavailable):
            # While the database is away every request fails: a line for each says enough.
            self._log.warning(
                "request failed", method=request.method, path=request.path, reason=str(error)
            )
            return unavailable()
        self._log.error("request failed", method=request.method, path=request.path, exc_info=error)
        return internal()

    async def _call(self, request: Request) -> Awaitable[object]:
        """The call of the endpoint, not begun: while that waits, nothing of this is kept."""
        if request.method == "OPTIONS":
            return _nothing()
        route: Route[_Endpoint] = request.route or self._route(request)
        endpoint = route.target
        declaration = endpoint.declaration
        requester: Requester | None = None
        origin: ServerName | None = None
        if endpoint.wants_token:
            token = sent_token(request, self._query_tokens)
            if token is not None:
                requester = await self._authenticator.authenticate(token, request)
                check_requester(declaration, requester)
            elif declaration.auth is not Auth.OPTIONAL_ACCESS_TOKEN:
                raise missing_token()
        elif endpoint.from_server:
            assert self._federation_authenticator is not None
            origin = await self._federation_authenticator.authenticate(request)
        if endpoint.is_writing and self._refuse_writing is not None:
            raise self._refuse_writing()
        if endpoint.rate is not None and self._rate_limiter is not None:
            await self._rate_limiter.check(requester, request, endpoint.rate, origin)
        arguments = endpoint.caller.arguments(request, route.parameters, requester, origin)
        request.is_cancellable = declaration.long_poll
        function = endpoint.caller.function
        if endpoint.turns is None:
            return function(**arguments)
        asker = origin or address_key(request.remote_address)
        return _in_turn(endpoint.turns, asker, function, arguments)

    def _route(self, request: Request) -> Route[_Endpoint]:
        """Raises MatrixError: 404 or 405 M_UNRECOGNIZED, or 400 for a malformed path."""
        if request.route is not None:
            known: Route[_Endpoint] = request.route
            return known
        found = self._table.find(request.method, request.path)
        if found.target is None and request.method == "HEAD":
            found = self._table.find("GET", request.path)
        if found.target is None:
            if not found.allowed:
                raise unrecognized()
            error = method_not_allowed()
            error.headers["Allow"] = ", ".join(sorted({*found.allowed, "OPTIONS"}))
            raise error
        route = Route(self._endpoints[found.target], found.decode())
        request.route = route
        return route


async def _nothing() -> Response:
    return Response(204, b"")


async def _in_turn(
    turns: Turns,
    asker: str,
    function: Callable[..., Awaitable[object]],
    arguments: Mapping[str, Any],
) -> object:
    async with turns.turn(asker):
        return await function(**arguments)


def check_requester(declaration: EndpointDeclaration, requester: Requester) -> None:
    """Whether a known requester may call an endpoint at all. Raises MatrixError (401, 403)."""
    auth = declaration.auth
    if requester.is_locked and not declaration.locked_ok:
        raise user_locked()
    if requester.is_guest and auth is Auth.ACCESS_TOKEN:
        raise guest_access_forbidden()
    if not requester.is_admin and auth is Auth.ADMIN:
        raise forbidden("Only administrators of this server may do this.")
    if requester.appservice_id is None and auth is Auth.APPSERVICE:
        raise forbidden("Only application services may do this.")
    if requester.is_suspended and declaration.refuse_suspended:
        raise user_suspended()


def _render(value: object) -> Response:
    if isinstance(value, Response):
        body = value.body
        if body is None:
            value.body = b""
        elif not isinstance(body, (bytes, AsyncIterator)):
            value.body = encode_json(body)
            value.headers.setdefault("Content-Type", JSON_TYPE)
        return value
    if isinstance(value, RawJson):
        return Response.of_json(value.status, value.data)
    if value is None:
        raise TypeError("an endpoint returned None")
    return Response.of_json(200, encode_json(value))
