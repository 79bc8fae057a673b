"""A real server process: start, serve, stop."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trustme
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from config import from_dict
from homeserver import server
from tests.support.databases import administer, postgres_url, redis_url
from tests.support.process import ServerProcess
from tests.support.services import free_port


def free_pair() -> int:
    """A free port whose successor is free too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class CommandProcess(ServerProcess):
    """The command as operators run it, from its first import on."""

    imported = False


class StoppedClock(Clock):
    """A reactor that does not run."""

    running = False


class BoundTests(SynchronousTestCase):
    """A stop ends, whatever hangs."""

    def setUp(self) -> None:
        self.clock = StoppedClock()
        self.said: list[str] = []
        self.ended: list[int] = []
        self.patch(os, "_exit", self.ended.append)
        config = from_dict({"server_name": "localhost"})
        log: Any = SimpleNamespace(
            info=lambda message, **more: self.said.append(message),
            warning=lambda message, **more: self.said.append(f"{message}: {more['reason']}"),
        )
        output: Any = SimpleNamespace(close=lambda: None)
        self.server = server.Server(config, self.clock, log, output, 0, 1)
        self.stopped: Deferred[None] = Deferred()
        homeserver: Any = SimpleNamespace(stop=lambda: self.stopped)
        self.server._homeserver = homeserver

    def test_a_database_that_is_away(self) -> None:
        """What is written at last is not waited for without end."""
        self.server.stop()
        self.clock.advance(19)
        self.assertEqual(self.ended, [])
        self.clock.advance(1)
        self.assertEqual(self.ended, [1])
        self.assertIn("the database may be away", self.said[-1])

    def test_in_time(self) -> None:
        self.server.stop()
        self.stopped.callback(None)
        self.assertEqual((self.said[-1], self.clock.getDelayedCalls()), ("stopped", []))
        self.assertEqual(self.ended, [])


class ServerTests(TestCase):
    def make(self, **options: Any) -> ServerProcess:
        server = CommandProcess(Path(self.mktemp()), options)
        self.addCleanup(server.kill)
        return server

    def register(self, server: ServerProcess, name: str) -> str:
        """The access token of a new user."""
        status, body = server.request(
            "POST",
            "/_matrix/client/v3/register",
            {"username": name, "password": "pw", "auth": {"type": "m.login.dummy"}},
        )
        self.assertEqual(status, 200, body)
        token: str = json.loads(body)["access_token"]
        return token

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} did not happen")
            time.sleep(0.02)

    def test_serves_and_stops_cleanly(self) -> None:
        server = self.make()
        server.start()
        self.assertEqual(server.get("/_matrix/client/versions")[0], 200)
        self.assertEqual(server.get("/metrics")[0], 404)
        status, metrics = server.get(f"http://127.0.0.1:{server.own_port}/metrics")
        self.assertEqual(status, 200)
        self.assertIn('hearth_requests_total{endpoint="/_matrix/client/versions"', metrics)
        self.assertRegex(metrics, r"(?m)^hearth_connections [1-9]")
        self.assertEqual(server.stop(), 0)
        log = server.log()
        self.assertNotIn("warning", log)
        self.assertIn("stopped", log.splitlines()[-1])
        self.assertNotIn("Traceback", log)

    def test_a_second_signal_ends_at_once(self) -> None:
        server = self.make(stop_timeout="10m")
        server.start()
        # Somebody whose request is never complete, so that the first signal waits.
        with socket.create_connection(("127.0.0.1", server.port)) as busy:
            busy.sendall(
                b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\n"
                b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
            )
            self.assertIn(b"100 Continue", busy.recv(100))
            server.signal(signal.SIGTERM)
            self.until(lambda: "stopping" in server.log(), "the first signal")
            server.signal(signal.SIGTERM)
            self.assertEqual(server.wait(), 1)
        self.assertIn("stopping at once", server.log())

    def test_carries_on_at_another_port(self) -> None:
        server = self.make()
        server.start()
        token = self.register(server, "alice")
        key = (server.directory / "data" / "signing.key").read_text()
        self.assertEqual(server.stop(), 0)
        server.port, server.own_port = free_port(), free_port()
        server.start()
        status, body = server.request("GET", "/_matrix/client/v3/account/whoami", token=token)
        self.assertEqual((status, json.loads(body)["user_id"]), (200, "@alice:localhost"))
        self.assertEqual((server.directory / "data" / "signing.key").read_text(), key)

    def test_a_request_under_way_is_finished(self) -> None:
        """The body arrives after SIGTERM; the answer still comes, new connections do not."""
        server = self.make()
        server.start()
        body = json.dumps(
            {"username": "late", "password": "pw", "auth": {"type": "m.login.dummy"}}
        ).encode()
        with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
            connection.sendall(
                b"POST /_matrix/client/v3/register HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body[:10]
            )
            # The server has read the head when it answers a request sent after it.
            self.assertEqual(server.get("/_matrix/client/versions")[0], 200)
            server.signal()
            self.until(lambda: "stopping" in server.log(), "the stop")
            self.until(lambda: server.health() is None, "the end of listening")
            connection.sendall(body[10:])
            answer = connection.makefile("rb").read()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertIn(b"@late:localhost", answer)
        self.assertEqual(server.wait(), 0)

    def test_requests_that_never_end_are_cut_off(self) -> None:
        server = self.make(stop_timeout="200ms")
        server.start()
        with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
            connection.sendall(
                b"POST /_matrix/client/v3/register HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 10\r\n\r\n"
            )
            self.assertEqual(server.get("/_matrix/client/versions")[0], 200)
            self.assertEqual(server.stop(), 0)

    def test_a_stop_while_waiting_for_the_database(self) -> None:
        url = f"postgresql://hearth@127.0.0.1:{free_port()}/hearth"
        server = self.make(database={"url": url})
        server.spawn()
        self.until(lambda: "Waiting for the database" in server.log(), "the wait")
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("Traceback", server.log())

    def test_tls_and_renewal(self) -> None:
        authority = trustme.CA()
        server = self.make()
        files = server.directory / "c.pem", server.directory / "k.pem"

        def issue() -> None:
            issued = authority.issue_cert("127.0.0.1")
            issued.cert_chain_pems[0].write_to_path(files[0])
            issued.private_key_pem.write_to_path(files[1])

        issue()
        tls_port = free_port()
        server.options["listeners"] = [
            {
                "port": tls_port,
                "serves": ["client"],
                "tls": {"certificate": "c.pem", "private_key": "k.pem"},
            },
            {"port": server.own_port, "serves": ["health"]},
        ]
        server.start()
        context = ssl.create_default_context()
        authority.configure_trust(context)

        def certificate() -> bytes | None:
            with (
                socket.create_connection(("127.0.0.1", tls_port), 60) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                return secure.getpeercert(binary_form=True)

        url = f"https://127.0.0.1:{tls_port}/_matrix/client/versions"
        with urllib.request.urlopen(url, timeout=60, context=context) as answer:
            self.assertEqual(answer.status, 200)
        first = certificate()
        issue()
        server.signal(signal.SIGHUP)
        self.until(lambda: certificate() != first, "the renewal")

    def test_json_log_in_a_file_and_its_rotation(self) -> None:
        server = self.make(log={"to": "hearth.log", "format": "json", "level": "info"})
        server.start()
        log = server.directory / "hearth.log"
        log.rename(server.directory / "hearth.log.1")
        server.signal(signal.SIGHUP)
        self.until(log.exists, "the new file")
        self.assertEqual(server.stop(), 0)
        old = (server.directory / "hearth.log.1").read_text().splitlines()
        self.assertIn("started", [json.loads(line)["event"] for line in old])
        new = [json.loads(line)["event"] for line in log.read_text().splitlines()]
        self.assertEqual(new[-1], "stopped")
        self.assertEqual(server.log(), "")


class ProcessesTests(TestCase):
    """Several processes on one PostgreSQL and one Redis."""

    def setUp(self) -> None:
        name = f"processes_{secrets.token_hex(6)}"
        administer(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        self.addCleanup(administer, f"DROP DATABASE {name} WITH (FORCE)")
        url = postgres_url().rpartition("/")[0] + f"/{name}"
        options = {"database": {"url": url}, "redis": {"url": redis_url()}}
        self.server = CommandProcess(Path(self.mktemp()), options)
        self.server.own_port = free_pair()
        self.addCleanup(self.server.kill)

    def health(self, process: int) -> int | None:
        """The status of /health of one process; None if nobody answers."""
        try:
            return self.server.get(f"http://127.0.0.1:{self.server.own_port + process}/health")[0]
        except OSError:
            return None

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} did not happen:\n{self.server.log()}")
            time.sleep(0.02)

    def test_two_processes_share_the_port_and_have_metrics_of_their_own(self) -> None:
        self.server.start("--processes", "2")
        self.until(lambda: self.health(1) == 200, "the start of the second process")
        for _ in range(40):
            self.assertEqual(self.server.get("/_matrix/client/versions")[0], 200)
        counted = 'hearth_requests_total{endpoint="/_matrix/client/versions"'
        answered = []
        for process in range(2):
            url = f"http://127.0.0.1:{self.server.own_port + process}/metrics"
            lines = self.server.get(url)[1].splitlines()
            answered += [float(line.rpartition(" ")[2]) for line in lines if counted in line]
        self.assertEqual(sum(answered), 40)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual((self.health(0), self.health(1)), (None, None))

    def test_a_killed_process_is_replaced(self) -> None:
        self.server.start("--processes", "2")
        self.until(lambda: self.health(1) == 200, "the start of the second process")
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        before = children.read_text().split()
        os.kill(int(before[0]), signal.SIGKILL)
        self.until(
            lambda: (
                len(children.read_text().split()) == 2
                and before[0] not in children.read_text().split()
            ),
            "the replacement",
        )
        self.until(lambda: self.health(0) == self.health(1) == 200, "its readiness")
        self.assertEqual(self.server.stop(), 0)
