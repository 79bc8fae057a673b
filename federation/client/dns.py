"""DNS questions, asked with twisted.names.

Rules: addresses of ordinary names are found through CNAME; the target of an SRV record must not
be an alias (RFC 2782). The hosts file comes first. "There is none" is an answer; a name server
that fails or keeps silent is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import AuthoritativeDomainError, DNSNameError, DomainError
from twisted.names.hosts import Resolver as HostsFile
from twisted.python.failure import Failure

from federation.client.names import LookupFailed, SrvRecord

Records = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]

# Neither has types.
_Resolver: Any = Resolver
_HostsFile: Any = HostsFile

_QUERY_TIMEOUTS_S = (1, 3, 5)
_ABSENT = (DomainError, AuthoritativeDomainError, DNSNameError)
"""Exactly these: other errors are subclasses of DomainError too."""

_LOOPBACK = ("127.0.0.1", "::1")


class DnsQueries(Protocol):
    """The part of twisted.names' IResolver that is used here."""

    def lookupAddress(self, name: str) -> Deferred[Records]: ...
    def lookupIPV6Address(self, name: str) -> Deferred[Records]: ...
    def lookupService(self, name: str) -> Deferred[Records]: ...


class Dns:
    """Asks the name servers of the machine, or those behind `queries`."""

    def __init__(
        self, reactor: Any, queries: DnsQueries | None = None, hosts_file: str = "/etc/hosts"
    ) -> None:
        self._reactor = reactor
        self._queries = queries
        self._system: DnsQueries | None = None
        self._hosts: DnsQueries = _HostsFile(hosts_file.encode())

    async def addresses(self, name: str, *, follow_aliases: bool) -> list[str]:
        """The IPv4 and IPv6 addresses of a name, alternating; empty if it has none.

        With `follow_aliases` False only the records of the name itself count. Raises
        `LookupFailed` when neither kind could be asked for.
        """
        name = name.rstrip(".").lower()
        known = await self._both(self._hosts, name, follow_aliases)
        if any(known):
            return _alternate(*known)
        if name == "localhost" or name.endswith(".localhost"):
            return list(_LOOPBACK)
        return _alternate(*await self._both(self._asked(), name, follow_aliases))

    async def services(self, name: str) -> list[SrvRecord]:
        """The SRV records of a name; empty if it has none. Raises `LookupFailed`."""
        try:
            answers, _, _ = await self._asked().lookupService(name)
        except Exception as error:
            _unless_absent(name, error)
            return []
        return [
            SrvRecord(
                payload.priority,
                payload.weight,
                payload.port,
                str(payload.target).rstrip(".").lower(),
                record.ttl,
            )
            for record in answers
            for payload in _payload(record, dns.SRV)
        ]

    def close(self) -> None:
        """Let go of the timer with which the name servers' list is re-read."""
        timer = getattr(self._system, "_parseCall", None)
        if timer is not None and timer.active():
            timer.cancel()
        self._system = None

    def _asked(self) -> DnsQueries:
        if self._queries is not None:
            return self._queries
        if self._system is None:
            self._system = _Resolver(
                "/etc/resolv.conf", timeout=_QUERY_TIMEOUTS_S, reactor=self._reactor
            )
        return self._system

    async def _both(
        self, queries: DnsQueries, name: str, follow_aliases: bool
    ) -> tuple[list[str], list[str]]:
        asked: list[Callable[[str], Deferred[Records]]] = [
            queries.lookupAddress,
            queries.lookupIPV6Address,
        ]
        # A question that cannot even be put, for want of a port, raises at once.
        questions = [maybeDeferred(ask, name) for ask in asked]
        outcomes = await DeferredList(questions, consumeErrors=True)
        found: list[list[str]] = []
        failed: Exception | None = None
        for outcome in outcomes:
            result: Any = outcome[1]
            if isinstance(result, Failure):
                found.append([])
                try:
                    _unless_absent(name, result.value)
                except LookupFailed as error:
                    failed = error
                continue
            found.append(_own_addresses(result[0], None if follow_aliases else name))
        if failed is not None and not any(found):
            raise failed
        return found[0], found[1]


def _own_addresses(records: list[dns.RRHeader], owner: str | None) -> list[str]:
    """The addresses in an answer; with `owner` only those that belong to this very name."""
    return [
        str(ip_address(payload.address))
        for record in records
        if owner is None or str(record.name).rstrip(".").lower() == owner
        for payload in _payload(record, dns.A, dns.AAAA)
    ]


def _payload(record: dns.RRHeader, *types: int) -> list[Any]:
    return [record.payload] if record.type in types else []


def _alternate(first: list[str], second: list[str]) -> list[str]:
    """Both lists in turns, so that a family without a route delays little."""
    pairs = zip_longest(dict.fromkeys(first), dict.fromkeys(second))
    return [address for pair in pairs for address in pair if address is not None]


def _unless_absent(name: str, error: BaseException | None) -> None:
    """Raise `LookupFailed`, unless the error says that there is no such name or record."""
    if type(error) in _ABSENT:
        return
    if isinstance(error, (CancelledError, AssertionError)):
        raise error
    raise LookupFailed(f"looking up {name} failed: {type(error).__name__}") from None
