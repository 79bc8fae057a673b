"""Listening sockets and which ports processes share."""

from __future__ import annotations

import resource
import socket

from twisted.trial.unittest import SynchronousTestCase, TestCase

from config.model import Listener
from homeserver.listening import allow_connections, check_ports, open_socket, port_for
from homeserver.startup import CannotStart
from homeserver.web.http import HttpLimits


class ListeningTests(TestCase):
    def taken(self) -> int:
        """A port on which somebody else listens."""
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port: int = other.getsockname()[1]
        return port

    def open(self, listener: Listener, process: int = 0, processes: int = 1) -> socket.socket:
        opened = open_socket(listener, process, processes)
        self.addCleanup(opened.close)
        return opened

    def test_a_port_in_use(self) -> None:
        port = self.taken()
        error = self.assertRaises(CannotStart, open_socket, Listener(port=port))
        self.assertIn(f"127.0.0.1 port {port}: the port is in use", str(error))

    def test_an_address_of_another_machine(self) -> None:
        error = self.assertRaises(CannotStart, open_socket, Listener(address="192.0.2.1", port=0))
        self.assertIn("does not have that address", str(error))

    def test_no_address(self) -> None:
        error = self.assertRaises(CannotStart, open_socket, Listener(address="nonsense:", port=0))
        self.assertIn("Cannot listen on nonsense:", str(error))

    def test_processes_share_a_port(self) -> None:
        first = self.open(Listener(port=0), 0, 2)
        port = first.getsockname()[1]
        self.open(Listener(port=port), 1, 2)
        # Alone, nobody shares.
        self.assertRaises(CannotStart, open_socket, Listener(port=port))

    def test_metrics_are_each_process_own(self) -> None:
        listener = Listener(port=9100, serves=("metrics", "health"))
        self.assertEqual([port_for(listener, number) for number in range(3)], [9100, 9101, 9102])
        shared = Listener(port=8008, serves=("client", "health"))
        self.assertEqual([port_for(shared, number) for number in range(3)], [8008] * 3)

    def test_the_parent_finds_ports_in_use(self) -> None:
        port = self.taken()
        error = self.assertRaises(CannotStart, check_ports, (Listener(port=port),), 2)
        self.assertIn("in use", str(error))

    def test_the_parent_finds_listeners_that_collide(self) -> None:
        own = Listener(port=45101, serves=("metrics",))
        other = Listener(port=45102, serves=("health",))
        error = self.assertRaises(CannotStart, check_ports, (own, other), 2)
        self.assertIn("45102", str(error))


class FileLimitTests(SynchronousTestCase):
    """How many connections a process may have open."""

    def allowed(self, soft: int, hard: int, fails: bool = False) -> tuple[int, list[object]]:
        asked: list[object] = []

        def ask(kind: int, limits: tuple[int, int]) -> None:
            asked.append(limits)
            if fails:
                raise ValueError

        self.patch(resource, "getrlimit", lambda kind: (soft, hard))
        self.patch(resource, "setrlimit", ask)
        return allow_connections(), asked

    def test_as_many_as_the_system_permits(self) -> None:
        most = HttpLimits().max_connections
        infinite = resource.RLIM_INFINITY
        self.assertEqual(self.allowed(1024, 4096), (3896, [(4096, 4096)]))
        self.assertEqual(self.allowed(1024, 1024), (824, []))
        self.assertEqual(self.allowed(256, 256), (128, []))
        self.assertEqual(self.allowed(1024, 524288), (most, [(most + 200, 524288)]))
        self.assertEqual(self.allowed(1024, infinite), (most, [(most + 200, infinite)]))
        self.assertEqual(self.allowed(infinite, infinite), (most, []))
        self.assertEqual(self.allowed(1024, 4096, fails=True), (824, [(4096, 4096)]))
