"""Waiting for what must not be cancelled, such as the reply to a command."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def in_time(asked: Deferred[Any], clock: Any, seconds: float) -> Deferred[Any]:
    """What `asked` gives, or a TimeoutError after so many seconds.

    `asked` is left to end by itself: clients find replies by the order of what they asked.
    """
    answer: Deferred[Any] = Deferred()

    def too_late() -> None:
        answer.errback(TimeoutError(f"no answer within {seconds:g} s"))

    timer = clock.callLater(seconds, too_late)

    def arrived(result: Any) -> None:
        if timer.active():
            timer.cancel()
        if answer.called:
            return
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)

    asked.addBoth(arrived)
    return answer
