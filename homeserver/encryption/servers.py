"""The same question to many servers at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError, RemoteHttpError, RemoteTimeout
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.semaphore import Semaphore

DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 60_000
MAX_ANSWER_BYTES = 20 * 1024 * 1024
_AT_ONCE = 100

T = TypeVar("T")
U = TypeVar("U")


def by_server(wanted: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """What is wanted of users, by their servers."""
    found: dict[str, dict[str, T]] = {}
    for user_id, each in wanted.items():
        found.setdefault(UserID(user_id).domain, {})[user_id] = each
    return found


async def ask_all(
    questions: Mapping[str, T],
    ask: Callable[[str, T, float], Awaitable[U]],
    timeout_ms: int | None,
    clock: IReactorTime,
) -> tuple[dict[str, U], dict[str, JsonObject]]:
    """Ask all servers at the same time: answers, and `failures` as clients are told of them.

    `ask` is given the name of the server, the question, and the seconds that are left of the
    time-out of all; it may raise RemoteError.
    """
    answers: dict[str, U] = {}
    failures: dict[str, JsonObject] = {}
    slots = Semaphore(_AT_ONCE)
    ends = clock.seconds() + _timeout_s(timeout_ms)

    async def one(server_name: str, question: T) -> None:
        await slots.acquire()
        try:
            left = ends - clock.seconds()
            if left <= 0:
                raise RemoteTimeout(server_name, "not asked in time")
            answers[server_name] = await ask(server_name, question, left)
        except RemoteError as error:
            failures[server_name] = _failure(error)
        finally:
            slots.release()

    await gatherResults(
        [Deferred.fromCoroutine(one(*question)) for question in questions.items()],
        consumeErrors=True,
    )
    return answers, failures


def _timeout_s(wanted_ms: int | None) -> float:
    """The time-out of a request that names one, in seconds."""
    wanted = DEFAULT_TIMEOUT_MS if wanted_ms is None else wanted_ms
    return min(max(wanted, 100), MAX_TIMEOUT_MS) / 1000


def _failure(error: RemoteError) -> JsonObject:
    status = error.status if isinstance(error, RemoteHttpError) else 503
    return {"status": status, "message": error.reason[:300]}
