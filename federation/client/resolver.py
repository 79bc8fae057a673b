"""Server discovery (Server-Server API, "Resolving server names").

`discovery` is the specification's steps as a generator: it yields questions, is sent their
answers, and returns the route. `Resolver` answers the questions from well-known and DNS.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from federation.client.errors import Unreachable
from federation.client.names import LookupFailed, SrvRecord
from federation.client.route import Endpoint, Route
from federation.client.srv import SrvLookup
from federation.client.well_known import WellKnown
from homeserver.core.ids import ServerName

DEFAULT_PORT = 8448


@dataclass(frozen=True, slots=True)
class AskWellKnown:
    """To which server name does `host` delegate? Answer: a `ServerName` or None."""

    host: str


@dataclass(frozen=True, slots=True)
class AskSrv:
    """Which SRV records has `name`? Answer: a sequence of `SrvRecord`."""

    name: str


Discovery = Generator[AskWellKnown | AskSrv, Any, Route]


class NoSuchService(Exception):
    """The SRV records say that the host offers no federation (RFC 2782: target ".")."""


def discovery(name: ServerName) -> Discovery:
    """Find the route to a server; raises `NoSuchService`."""
    if name.is_ip_address:
        return _literal(name, "1")
    if name.port is not None:
        return _explicit_port(name, name.port, "2")
    delegated: ServerName | None = yield AskWellKnown(name.host)
    if delegated is None:
        return (yield from _by_srv(name.host, ("4", "5", "6")))
    if delegated.is_ip_address:
        return _literal(delegated, "3.1")
    if delegated.port is not None:
        return _explicit_port(delegated, delegated.port, "3.2")
    return (yield from _by_srv(delegated.host, ("3.3", "3.4", "3.5")))


def _literal(name: ServerName, step: str) -> Route:
    address = name.host.strip("[]")
    port = DEFAULT_PORT if name.port is None else name.port
    return Route(step, str(name), address, (Endpoint(address, port),))


def _explicit_port(name: ServerName, port: int, step: str) -> Route:
    return Route(step, str(name), name.host, (Endpoint(name.host, port),))


def _by_srv(host: str, steps: tuple[str, str, str]) -> Discovery:
    # The target of an SRV record comes from DNS, which anybody may have forged: the server
    # found there answers to, and proves, the name that was looked up.
    for service, step in (("_matrix-fed", steps[0]), ("_matrix", steps[1])):
        records: Sequence[SrvRecord] = yield AskSrv(f"{service}._tcp.{host}")
        if records:
            return Route(step, host, host, _targets(records, host))
    return Route(steps[2], host, host, (Endpoint(host, DEFAULT_PORT),))


def _targets(records: Sequence[SrvRecord], host: str) -> tuple[Endpoint, ...]:
    targets = tuple(
        Endpoint(record.target, record.port, record.priority, record.weight, from_srv=True)
        for record in records
        if record.target
    )
    if not targets:
        raise NoSuchService(f"the SRV records of {host} say that there is no such service")
    return targets


class Resolver:
    """Answers the questions of `discovery`."""

    def __init__(self, well_known: WellKnown, srv: SrvLookup) -> None:
        self._well_known = well_known
        self._srv = srv

    async def resolve(self, name: ServerName) -> Route:
        """The route to a server; raises `Unreachable` when DNS fails or denies the service."""
        steps = discovery(name)
        answer: Any = None
        try:
            while True:
                question = steps.send(answer)
                if isinstance(question, AskWellKnown):
                    answer = await self._well_known.delegated(question.host)
                else:
                    answer = await self._srv.find(question.name)
        except StopIteration as found:
            route: Route = found.value
            return route
        except (LookupFailed, NoSuchService) as error:
            raise Unreachable(name, str(error)) from None
