"""Opening connections to PostgreSQL for the reactor.

A thread does it: names are looked up meanwhile, and TLS is agreed upon. libpq has a time-out only
where it waits itself, so that the one for asynchronous connections is here.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import POLL_OK, POLL_READ

from storage.pool import Reactor
from storage.postgres import BYTEA, CONNECT_TIMEOUT, CONNECTION_OPTIONS

Done = Callable[[Any, str], None]

_TURN = 0.1
"""Seconds after which a thread that waits looks whether it is to stop."""


class _Stopped(Exception):
    """Nobody wants the connection any more, or it took too long."""


class Opening:
    """Opens connections, one thread each. Used on the reactor thread."""

    def __init__(
        self, url: str, reactor: Reactor, statement_timeout_ms: int, *, writable: bool = False
    ) -> None:
        self.count = 0
        """How many are being opened."""
        self._url = url
        self._reactor = reactor
        self._settings = (
            f"SET statement_timeout = {statement_timeout_ms};"
            f" SET default_transaction_read_only = {'off' if writable else 'on'};"
            " SET standard_conforming_strings = on; SET bytea_output = 'hex'"
        )
        self._threads: set[threading.Thread] = set()
        self._stopping = False

    def start(self, done: Done) -> None:
        """Open one; `done` is called with it on the reactor thread, or with None and a reason."""
        self.count += 1
        thread = threading.Thread(target=self._run, args=(done,), name="connect", daemon=True)
        self._threads.add(thread)
        thread.start()

    def stop(self) -> None:
        """Open no more, and wait for the threads."""
        self._stopping = True
        for thread in self._threads:
            # Only one that looks up a name cannot stop.
            thread.join(10 * _TURN)

    @staticmethod
    def end(connection: Any) -> None:
        """Close a connection. Never raises."""
        with contextlib.suppress(psycopg2.Error):
            connection.close()

    def _run(self, done: Done) -> None:
        connection: Any = None
        ended: tuple[Done, Any, str]
        try:
            connection = psycopg2.connect(self._url, async_=1, **CONNECTION_OPTIONS)
            self._wait(connection)
            psycopg2.extensions.register_type(BYTEA, connection)
            cursor = connection.cursor()
            cursor.execute(self._settings)
            self._wait(connection)
        except (psycopg2.Error, OSError, ValueError, _Stopped) as error:
            if connection is not None:
                self.end(connection)
            ended = (done, None, str(error).strip())
        else:
            ended = (done, connection, "")
        self._reactor.callFromThread(self._ended, threading.current_thread(), *ended)

    def _ended(self, thread: threading.Thread, done: Done, connection: Any, reason: str) -> None:
        self.count -= 1
        self._threads.discard(thread)
        done(connection, reason)

    def _wait(self, connection: Any) -> None:
        ends = time.monotonic() + CONNECT_TIMEOUT
        while (state := connection.poll()) != POLL_OK:
            if self._stopping or time.monotonic() >= ends:
                raise _Stopped("no answer")
            waiter = select.poll()
            event = select.POLLIN if state == POLL_READ else select.POLLOUT
            waiter.register(connection.fileno(), event)
            waiter.poll(_TURN * 1000)
