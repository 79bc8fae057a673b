"""What one listener answers: a part of the router's paths, health and metrics."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from config.model import Serves
from homeserver.core.errors import unrecognized
from homeserver.telemetry.metrics import CONTENT_TYPE, Metrics
from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import CORS_HEADERS, Response, error_response
from storage.database import Database
from storage.transaction import Transaction

PREFIXES: Mapping[Serves, tuple[str, ...]] = {
    "client": (
        "/_matrix/client/",
        "/_synapse/client/",
        "/_hearth/client/",
        "/.well-known/matrix/client",
        "/.well-known/matrix/support",
    ),
    "federation": ("/_matrix/federation/", "/_matrix/key/", "/.well-known/matrix/server"),
    "media": ("/_matrix/media/", "/_matrix/client/v1/media/", "/_matrix/federation/v1/media/"),
    "admin": ("/_synapse/admin/",),
    "metrics": ("/metrics",),
    "health": ("/health",),
}
"""Which paths belong to what a listener may serve. Paths of none are answered everywhere."""

_ALL = tuple(prefix for prefixes in PREFIXES.values() for prefix in prefixes)
_PROBE_SECONDS = 5.0
_SMALL_BODY = BodyPlan(65_536, stream=False)
"""For what is answered without a look at the body: clients are to see the answer, not 413."""


class Application(Protocol):
    """See `homeserver.web.router.Router`."""

    def body_plan(self, request: Request) -> BodyPlan: ...

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]: ...


class Health:
    """Whether requests should be sent here: the database answers and the server is not stopping."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        self._waiting: list[Deferred[bool]] = []
        self.is_stopping = False

    def check(self) -> Deferred[bool]:
        """Ask the database; False after some seconds without an answer. Never fails."""
        answer: Deferred[bool] = Deferred()
        answer.addTimeout(_PROBE_SECONDS, self._clock, lambda *_: False)
        if self.is_stopping:
            answer.callback(False)
            return answer
        self._waiting.append(answer)
        # Those who come while a probe is under way share it: a database that hangs
        # does not get more and more of them.
        if len(self._waiting) == 1:
            probe = Deferred.fromCoroutine(self._db.read(_probe))
            probe.addCallbacks(lambda _: self._tell(True), self._failed)
        return answer

    def _failed(self, failure: Failure) -> None:
        self._tell(False)

    def _tell(self, is_reachable: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            if not answer.called:
                answer.callback(is_reachable and not self.is_stopping)


def _probe(txn: Transaction) -> None:
    txn.value("SELECT 1")


class Door:
    """Answers the requests of one listener."""

    def __init__(
        self, router: Application, serves: Collection[Serves], health: Health, metrics: Metrics
    ) -> None:
        self._router = router
        self._health = health if "health" in serves else None
        self._metrics = metrics if "metrics" in serves else None
        self._open = tuple(prefix for name in serves for prefix in PREFIXES[name])
        self._is_private = {"metrics", "health"}.issuperset(serves)

    def _is_closed(self, path: str) -> bool:
        if path.startswith(self._open):
            return False
        return self._is_private or path.startswith(_ALL)

    def body_plan(self, request: Request) -> BodyPlan:
        """See `homeserver.web.http.Application`."""
        if self._is_closed(request.path) or request.path in ("/health", "/metrics"):
            return _SMALL_BODY
        return self._router.body_plan(request)

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]:
        """See `homeserver.web.router.Router.handle`."""
        path = request.path
        if path.startswith("/_matrix/"):
            # Nearly all: the router's own coroutine, without one more around it.
            return self._router.handle(request) if not self._is_closed(path) else _refuse()
        return self._answer(request)

    async def _answer(self, request: Request) -> Response:
        path = request.path
        if path == "/health" and self._health is not None:
            return await self._answer_health(self._health)
        if path == "/metrics" and self._metrics is not None:
            return Response(200, self._metrics.render(), {"Content-Type": CONTENT_TYPE})
        return await (_refuse() if self._is_closed(path) else self._router.handle(request))

    async def _answer_health(self, health: Health) -> Response:
        try:
            is_well = await health.check()
        except CancelledError:
            is_well = False
        text = b"OK\n" if is_well else b"not available\n"
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        return Response(200 if is_well else 503, text, headers)


async def _refuse() -> Response:
    response = error_response(unrecognized())
    response.headers.update(CORS_HEADERS)
    return response
