"""Listening sockets, for one process or shared by several.

Processes share a port with SO_REUSEPORT: the kernel spreads connections over them. Listeners
that serve only metrics and health are not shared, since each process has its own figures:
process N (from 0) listens on port + N.
"""

from __future__ import annotations

import errno
import os
import resource
import socket

from config.model import Listener
from homeserver.startup import CannotStart
from homeserver.web.http import HttpLimits

_OWN = frozenset({"metrics", "health"})
_BACKLOG = 4096


_MOST = HttpLimits().max_connections
_OTHER_FILES = 200
"""What is open besides clients' connections: the database, other servers, logs."""


def allow_connections() -> int:
    """Let this process have as many files open as the system permits; for how many clients.

    Most systems permit a process a thousand unless it asks for more: no more than one person
    needs who opens connections and says nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # the kernel may have a lower limit of its own
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return min(_MOST, max(soft - _OTHER_FILES, soft // 2))


def is_shared(listener: Listener) -> bool:
    """Whether all processes of a machine listen on the same port."""
    return not _OWN.issuperset(listener.serves)


def port_for(listener: Listener, process: int) -> int:
    """The port that process number `process` listens on (0: any free one)."""
    if listener.port == 0 or is_shared(listener):
        return listener.port
    return listener.port + process


def open_socket(listener: Listener, process: int = 0, processes: int = 1) -> socket.socket:
    """A bound, listening, non-blocking socket. Raises CannotStart with the reason."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    port = port_for(listener, process)
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CannotStart(_reason(listener, port, error)) from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, listener.address != "::")
        if processes > 1 and is_shared(listener):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((listener.address, port))
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except (OSError, OverflowError) as error:
        opened.close()
        raise CannotStart(_reason(listener, port, error)) from None
    return opened


def check_ports(listeners: tuple[Listener, ...], processes: int) -> None:
    """Raise CannotStart if a port is taken by someone else or twice by ourselves.

    For the parent of several processes: their shared sockets would be bound beside those of
    another server of the same user without complaint.
    """
    wanted: set[tuple[str, int]] = set()
    for listener in listeners:
        for process in range(1 if is_shared(listener) else processes):
            port = port_for(listener, process)
            if port and (listener.address, port) in wanted:
                raise CannotStart(
                    f"Two listeners would use {listener.address} port {port}: listeners of "
                    "metrics and health need as many ports as there are processes."
                )
            wanted.add((listener.address, port))
            open_socket(listener, process).close()


def _reason(listener: Listener, port: int, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if number else str(error)
    if number == errno.EADDRINUSE:
        why = "the port is in use. Is another server running?"
    elif number == errno.EACCES:
        why = "not permitted; ports below 1024 need a privilege"
    elif number == errno.EADDRNOTAVAIL:
        why = "this machine does not have that address"
    return f"Cannot listen on {listener.address} port {port}: {why}"
