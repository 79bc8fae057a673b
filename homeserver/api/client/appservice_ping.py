"""Whether an application service can be reached (Application Service API, "Pinging")."""

from __future__ import annotations

import json

import msgspec
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError, RemoteTimeout
from homeserver.appservices.calls import AppserviceCalls
from homeserver.appservices.delivery import AppserviceDelivery
from homeserver.core.errors import MatrixError, forbidden
from homeserver.users.appservices import Appservices
from homeserver.web.endpoint import Auth, Requester, endpoint

_SHOWN = 2_000


class Stopwatch:
    """Tells how long something takes."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        """A time in milliseconds."""
        return int(self._clock.seconds() * 1000)


class PingBody(msgspec.Struct):
    transaction_id: str | None = None


class PingAnswer(msgspec.Struct):
    duration_ms: int


@endpoint(
    "POST",
    "/_matrix/client/v1/appservice/{appservice_id}/ping",
    auth=Auth.APPSERVICE,
    rate="write",
    also=("/_matrix/client/unstable/fi.mau.msc2659/appservice/{appservice_id}/ping",),
)
async def post_ping(
    requester: Requester,
    appservice_id: str,
    body: PingBody,
    appservices: Appservices,
    calls: AppserviceCalls,
    delivery: AppserviceDelivery,
    stopwatch: Stopwatch,
) -> PingAnswer:
    """Ask the service that asks for it."""
    registration = appservices.get(appservice_id)
    if registration is None or requester.appservice_id != appservice_id:
        raise forbidden("This is not the token of that application service.")
    if registration.url is None:
        raise MatrixError(400, "M_URL_NOT_SET", "The registration names no URL.")
    content = {} if body.transaction_id is None else {"transaction_id": body.transaction_id}
    started = stopwatch.now_ms()
    try:
        answer = await calls.request(
            registration, "POST", "/ping", json.dumps(content).encode(), old=None
        )
    except RemoteTimeout:
        error = "The application service did not answer in time."
        raise MatrixError(504, "M_CONNECTION_TIMEOUT", error) from None
    except RemoteError as failed:
        error = f"The application service cannot be reached: {failed.reason}."
        raise MatrixError(502, "M_CONNECTION_FAILED", error) from None
    if not 200 <= answer.status < 300:
        bad = MatrixError(502, "M_BAD_STATUS", f"The service answered {answer.status}.")
        shown = answer.body[:_SHOWN].decode("utf-8", "replace")
        bad.extra.update(status=answer.status, body=shown)
        raise bad
    delivery.retry(appservice_id)
    return PingAnswer(stopwatch.now_ms() - started)


ENDPOINTS = [post_ping]
