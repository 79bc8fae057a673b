"""What an endpoint is told about a request, whatever carried it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from homeserver.core import canonical
from homeserver.core.errors import MatrixError, not_json
from homeserver.core.ids import ServerName, UserID
from homeserver.web.schema import UNPARSED


@lru_cache(maxsize=64)
def _only_coding(coding: bytes | None) -> dict[bytes, bytes]:
    """Headers for many requests; nobody changes the headers of a request."""
    return {} if coding is None else {b"accept-encoding": coding}


class Request:
    """One HTTP request.

    `path` and `raw_query` are as sent, not percent-decoded. `headers` has lower-case names;
    the values of a repeated header are joined with ", ". `body` is complete except for
    endpoints with `stream_body`, which read `body_stream` instead. `remote_address` is the
    client's IP address, already corrected for trusted proxies ("" when unknown).
    """

    __slots__ = (
        "_json",
        "_on_disconnect",
        "_on_shutdown",
        "body",
        "body_stream",
        "headers",
        "is_cancellable",
        "is_cancelled",
        "is_disconnected",
        "method",
        "path",
        "raw_query",
        "remote_address",
        "request_id",
        "route",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
        remote_address: str = "",
    ) -> None:
        self.method = method
        self.path, _, self.raw_query = target.partition("?")
        self.headers = headers if headers is not None else {}
        self.body = body
        self.body_stream: AsyncIterator[bytes] | None = None
        self.remote_address = remote_address
        self.request_id = ""
        self.route: Any = None
        """What the router found for this request; the router's own."""
        self.is_cancellable = False
        """Whether the handler may be cancelled when the client goes away (long-polls)."""
        self.is_cancelled = False
        """Whether the transport cancelled the handler."""
        self.is_disconnected = False
        self._json: Any = UNPARSED
        self._on_disconnect: list[Callable[[], None]] | None = None
        self._on_shutdown: list[Callable[[], None]] | None = None

    def __repr__(self) -> str:
        # Without the query, which may hold an access token.
        return f"<Request {self.method} {self.path}>"

    def settle(self) -> None:
        """Forget what was sent but for what the answer depends on: a client that waits for minutes
        takes little memory then. For handlers that have all they need as arguments."""
        self.headers = _only_coding(self.headers.get(b"accept-encoding"))
        self.raw_query = ""
        self.body = b""
        self._json = UNPARSED

    @property
    def target(self) -> str:
        """Path and query as sent; what federation requests sign as `uri`."""
        return f"{self.path}?{self.raw_query}" if self.raw_query else self.path

    @property
    def user_agent(self) -> str | None:
        return self.header("user-agent")

    def header(self, name: str) -> str | None:
        """The value of a header (name in any case), or None. Bad UTF-8 is replaced."""
        value = self.headers.get(name.lower().encode("ascii"))
        return None if value is None else value.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body parsed as strict JSON, once. Raises MatrixError (400 M_NOT_JSON)."""
        if self._json is UNPARSED:
            try:
                self._json = canonical.parse(self.body)
            except canonical.NotJSON as error:
                raise not_json() from error
        return self._json

    @property
    def parsed(self) -> Any:
        """What `json` has returned; `UNPARSED` if nobody has asked it."""
        return self._json

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call back once if the client goes away before the answer is complete."""
        if self.is_disconnected:
            callback()
            return
        if self._on_disconnect is None:
            self._on_disconnect = []
        self._on_disconnect.append(callback)

    def on_shutdown(self, callback: Callable[[], None]) -> None:
        """Call back when the server stops: a waiting handler answers early with what it has.

        A cancellable handler without such a callback is cancelled and its client told 503.
        """
        if self._on_shutdown is None:
            self._on_shutdown = []
        self._on_shutdown.append(callback)

    def disconnected(self) -> None:
        """For the transport: the client has gone away."""
        self.is_disconnected = True
        callbacks, self._on_disconnect = self._on_disconnect, None
        for callback in callbacks or ():
            callback()

    def shutting_down(self) -> bool:
        """For the transport: the server stops. Returns whether the handler asked to be told."""
        if self._on_shutdown is None:
            return False
        callbacks, self._on_shutdown = self._on_shutdown, []
        for callback in callbacks:
            callback()
        return True


@dataclass(frozen=True, slots=True)
class Requester:
    """Who makes a request, as found from the access token."""

    user_id: UserID
    device_id: str | None = None
    is_guest: bool = False
    is_admin: bool = False
    appservice_id: str | None = None
    is_shadow_banned: bool = False
    is_locked: bool = False
    is_suspended: bool = False
    is_rate_limited: bool = True
    token_hash: bytes | None = field(default=None, compare=False, repr=False)
    rate: tuple[int, int] | None = None
    """Requests a second and at once, where an administrator set a limit for this user."""
    puppeteer: UserID | None = None
    """The administrator who acts as this user."""
    sees_everything: bool = False
    """An administrator who looks into rooms through the endpoints for administrators."""


class Authenticator(Protocol):
    """Finds who holds an access token. Raises MatrixError (401 M_UNKNOWN_TOKEN)."""

    async def authenticate(self, token: str, request: Request) -> Requester: ...


class FederationAuthenticator(Protocol):
    """Checks the X-Matrix signature of a request; returns the origin. Raises MatrixError (401)."""

    async def authenticate(self, request: Request) -> ServerName: ...


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """How the transport shall take the body of a request."""

    max_bytes: int
    stream: bool


class ClientDisconnected(MatrixError):
    """The client went away while its body was read or its answer written."""

    def __init__(self) -> None:
        super().__init__(499, "M_UNKNOWN", "The client went away.")
