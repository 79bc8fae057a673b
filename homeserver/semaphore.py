"""How many do something at a time."""

from __future__ import annotations

from typing import Self

from twisted.internet.defer import Deferred, DeferredSemaphore


class Semaphore(DeferredSemaphore):
    """A semaphore on which any number may wait, whatever they do with their turn.

    Twisted's resumes the next from within `release`. Where turns end within the call that began
    them (an answer that is known, an error before anything was asked), each is nested in the one
    before; from about a hundred in a row on the interpreter refuses, and the turn is lost for ever.
    This one resumes them one after the other.
    """

    _is_resuming = False

    def release(self: Self) -> None:
        """Give a turn back; whoever waits longest has it."""
        assert self.tokens < self.limit, "nobody has a turn"
        self.tokens += 1
        if self._is_resuming:
            return  # the loop below, further up the stack, goes on with the next
        self._is_resuming = True
        try:
            while self.waiting and self.tokens:
                self.tokens -= 1
                turn: Deferred[Self] = self.waiting.pop(0)
                turn.callback(self)
        finally:
            self._is_resuming = False
