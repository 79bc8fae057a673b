"""The running server: a built homeserver, its listeners, and how it stops.

Starting: build the homeserver (which opens the database), then listen. Stopping, on SIGTERM or
control-C: stop accepting, answer those who wait, finish what has begun within `stop_timeout`,
flush, let go of leases, for `_RELEASE_SECONDS` at most. A second signal ends at once. SIGHUP
reopens the log and reads certificates anew.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import gc
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

import homeserver
from config import Config, doubts, not_yet_used
from config.model import Listener
from homeserver.app import Homeserver, build
from homeserver.door import Door, Health
from homeserver.listening import allow_connections, open_socket
from homeserver.reachable import wait_for_redis
from homeserver.remembering import steady_allocator
from homeserver.startup import (
    CannotStart,
    database_url,
    hold_database,
    prepare_data_directory,
)
from homeserver.supervisor import PARENT_FD
from homeserver.telemetry.logs import Logger, LogOutput, install, open_output
from homeserver.ticking import start_ticking
from homeserver.web.http import HttpFactory, HttpLimits
from homeserver.web.prompt import write_at_once
from storage.errors import DatabaseTooNew, DatabaseUnavailable, UnusableDatabase

if TYPE_CHECKING:
    from homeserver.tls import ServerTls

_GC_THRESHOLDS = (20_000, 20, 50)
"""Collections are rarer than Python's default: a request makes few cycles, and a full collection
stops the whole server."""
_FLUSH_SECONDS = 1.0
_RELEASE_SECONDS = 20.0
"""How long a stopping server tries to write what it can do without, such as when somebody was last
seen, and to let go of leases: with its database away it would go on for minutes."""


def run_server(config: Config, *, process: int = 0, processes: int = 1) -> int:
    """Run until told to stop; returns the exit status.

    `process` is the number of this one among `processes` on this machine.
    """
    if hasattr(select, "epoll"):
        from homeserver.web import loop

        loop.install()
    from twisted.internet import reactor

    faulthandler.enable()
    steady_allocator()
    try:
        output = open_output(config.log)
    except OSError as error:
        print(f"Cannot write the log {config.log.to}: {error.strerror}.", file=sys.stderr)
        return 1
    log = install(output, config.log)
    server = Server(config, reactor, log, output, process, processes)
    server.install_signal_handlers()
    reactor.callWhenRunning(server.start)
    run: Any = reactor.run
    run(installSignalHandlers=False)
    output.close()
    return server.status


class Server:
    """One process of a homeserver."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        log: Logger,
        output: LogOutput,
        process: int,
        processes: int,
    ) -> None:
        self.status = 0
        self._config = config
        self._reactor = reactor
        self._log = log
        self._output = output
        self._process = process
        self._processes = processes
        self._homeserver: Homeserver | None = None
        self._health: Health | None = None
        self._factories: list[HttpFactory] = []
        self._ports: list[IListeningPort] = []
        self._certificates: list[ServerTls] = []
        self._parent: socket.socket | None = None
        self._starting: Deferred[None] | None = None
        self._loops: list[LoopingCall] = []
        self._is_stopping = False
        self._database_lock: int | None = None
        self._max_connections = allow_connections()

    # Starting

    def start(self) -> None:
        """Build and listen, then serve; on failure say why and end with status 1."""
        started = self._reactor.seconds()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallback(lambda _: self._ready(started))
        self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        for key in not_yet_used(self._config):
            self._log.warning("This version of Hearth does not use this key yet", key=key)
        for doubt in doubts(self._config):
            self._log.warning("The configuration may not be as you mean it", reason=doubt)
        prepare_data_directory(self._config)
        self._database_lock = hold_database(self._config)
        hs = await open_homeserver(self._config, self._reactor, self._log)
        self._homeserver = hs
        if self._is_stopping:
            return
        hs.metrics.gauge(
            "hearth_requests_running",
            "Requests being answered now, waiting ones included.",
            lambda: hs.router.running,
        )
        hs.metrics.gauge(
            "hearth_connections",
            "Connections of clients, servers and proxies to the listeners.",
            lambda: sum(len(factory.connections) for factory in self._factories),
        )
        self._health = Health(hs.db, self._reactor)
        for listener in self._config.listeners:
            self._listen(listener, hs, self._health)

    def _listen(self, listener: Listener, hs: Homeserver, health: Health) -> None:
        factory = HttpFactory(
            Door(hs.router, listener.serves, health, hs.metrics),
            clock=self._reactor,
            log=self._log,
            limits=HttpLimits(max_connections=self._max_connections),
            trusted_proxies=listener.trusted_proxies,
            threads=self._reactor,
        )
        front: Any = factory
        if listener.tls is not None:
            from homeserver.tls import ServerTls

            certificate = ServerTls(listener.tls)
            self._certificates.append(certificate)
            front = certificate.wrap(factory)
        opened = open_socket(listener, self._process, self._processes)
        address, port = opened.getsockname()[:2]
        try:
            listening = self._reactor.adoptStreamPort(opened.fileno(), opened.family, front)
        finally:
            opened.close()  # the reactor has a copy
        write_at_once(listening)
        self._ports.append(listening)
        self._factories.append(factory)
        self._log.info(
            "listening",
            address=address,
            port=port,
            serves=",".join(listener.serves),
            tls=listener.tls is not None,
        )

    def _ready(self, started: float) -> None:
        if self._is_stopping:
            self._wind_down()  # the start was too far gone to be cancelled
            return
        hs = self._homeserver
        assert hs is not None
        flushing = LoopingCall(self._output.flush)
        flushing.clock = self._reactor
        start_ticking(flushing, _FLUSH_SECONDS)
        self._loops = [flushing, hs.metrics.watch_loop(self._reactor)]
        # What exists now lives as long as the process: collections need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self._log.info(
            "started",
            server_name=self._config.server_name,
            version=homeserver.__version__,
            seconds=round(self._reactor.seconds() - started, 2),
        )
        self._tell_parent()

    def _failed(self, failure: Failure) -> None:
        """The start failed: say why, and end."""
        if not (self._is_stopping and isinstance(failure.value, CancelledError)):
            self.status = 1
            if isinstance(failure.value, CannotStart):
                self._complain(str(failure.value))
            else:
                self._complain("The server cannot start because of an error in it.", failure)
        self._is_stopping = True
        self._wind_down()

    def _complain(self, message: str, failure: Failure | None = None) -> None:
        """Log an error; if the log is a file, tell it on standard error too."""
        if failure is None:
            self._log.error(message)
        else:
            self._log.error(message, exc_info=failure)
        if self._config.log.to != "stderr":
            print(f"Error: {message}", file=sys.stderr)

    def _tell_parent(self) -> None:
        """Tell the parent of several processes that this one is ready, and watch it live."""
        number = os.environ.pop(PARENT_FD, None)
        if number is None:
            return
        self._parent = socket.socket(fileno=int(number))
        self._parent.setblocking(False)
        self._parent.send(b"r")
        watch = _ParentWatch(self._parent, lambda: self._parent_gone(watch))
        self._reactor.addReader(watch)

    def _parent_gone(self, watch: _ParentWatch) -> None:
        self._reactor.removeReader(watch)
        self._log.error("the parent process is gone")
        self.stop()

    # Signals

    def install_signal_handlers(self) -> None:
        """SIGTERM and SIGINT stop, a second one at once; SIGHUP reopens files."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self.stop))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reopen))

    def _reopen(self) -> None:
        try:
            self._output.reopen()
        except OSError as error:
            self._log.error("cannot reopen the log", reason=error.strerror)
        for certificate in self._certificates:
            try:
                certificate.reload()
            except CannotStart as error:
                self._log.error("keeping the old certificate", reason=str(error))
        self._log.info("opened the log and certificates anew")

    # Stopping

    def stop(self) -> None:
        """Stop cleanly; asked a second time, at once."""
        if self._is_stopping:
            self._stop_at_once("asked again")
        self._is_stopping = True
        self._log.info("stopping")
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
            return
        self._wind_down()

    def _stop_at_once(self, reason: str) -> None:
        self._log.warning("stopping at once", reason=reason)
        # Whatever hangs must not be waited for, threads neither; what was acknowledged is on the
        # disk.
        self._output.close()
        os._exit(self.status or 1)

    def _wind_down(self) -> None:
        stopping = Deferred.fromCoroutine(self._stop())
        stopping.addErrback(self._stop_failed)
        stopping.addBoth(lambda _: self._end())

    async def _stop(self) -> None:
        if self._health is not None:
            self._health.is_stopping = True
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        # Waiting long-polls are answered, idle connections closed, the rest may finish.
        seconds = self._config.stop_timeout.seconds
        await gatherResults([factory.stop(seconds) for factory in self._factories])
        if self._homeserver is not None:
            reason = "what it writes at last takes too long: the database may be away"
            late = self._reactor.callLater(_RELEASE_SECONDS, self._stop_at_once, reason)
            try:
                await self._homeserver.stop()
            finally:
                if late.active():
                    late.cancel()
        self._log.info("stopped")

    def _stop_failed(self, failure: Failure) -> None:
        self.status = 1
        self._log.error("the server did not stop cleanly", exc_info=failure)

    def _end(self) -> None:
        for loop in self._loops:
            if loop.running:
                loop.stop()
        if self._reactor.running:
            self._reactor.stop()


@implementer(IReadDescriptor)
class _ParentWatch:
    """Calls `gone` when the parent process is no more."""

    def __init__(self, channel: socket.socket, gone: Callable[[], None]) -> None:
        self._channel = channel
        self._gone = gone

    def fileno(self) -> int:
        return self._channel.fileno()

    def logPrefix(self) -> str:
        return "parent"

    def doRead(self) -> None:
        try:
            is_open = bool(self._channel.recv(16))
        except BlockingIOError:
            return
        except OSError:
            is_open = False
        if not is_open:
            self._gone()

    def connectionLost(self, reason: Failure) -> None:
        self._channel.close()


async def open_homeserver(
    config: Config, reactor: Any, log: Logger, *, serving: bool = True
) -> Homeserver:
    """`homeserver.app.build`. Raises CannotStart, for every reason that is not an error of ours."""
    await wait_for_redis(config, reactor, log)
    try:
        return await build(config, reactor, log, serving=serving)
    except DatabaseTooNew as error:
        raise CannotStart(
            f"The database {_shown(config)} was used by a newer version of Hearth, and cannot be "
            f"used by this one, {homeserver.__version__}: {error}"
        ) from None
    except UnusableDatabase as error:
        raise CannotStart(f"The database {_shown(config)} cannot be used: {error}") from None
    except DatabaseUnavailable as error:
        raise CannotStart(
            f"Cannot reach the database {_shown(config)}, having tried for "
            f"{config.database.start_timeout}: {error}"
        ) from None


def _shown(config: Config) -> str:
    """The database's URL without its password."""
    url = database_url(config)
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1@", url)


def run_once(config: Config, act: Callable[[Homeserver], Awaitable[None]]) -> None:
    """Build a homeserver that serves nobody and does nothing by itself, run `act`, and stop it.

    For commands; raises CannotStart and what `act` raises.
    """
    from twisted.internet import reactor

    quiet = dataclasses.replace(config.log, level="warning", to="stderr", format="human")
    log = install(LogOutput(None), quiet)
    failures: list[Failure] = []

    async def run() -> None:
        hs = await open_homeserver(config, reactor, log, serving=False)
        try:
            await act(hs)
        finally:
            await hs.stop()

    def start() -> None:
        done = Deferred.fromCoroutine(run())
        done.addErrback(failures.append)
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()
    if failures:
        failures[0].raiseException()
