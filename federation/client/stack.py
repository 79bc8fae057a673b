"""What requests to other servers are made with, loaded when the first is made.

TLS, HTTP and DNS take 15 megabytes and a fifth of a second to load: a server that is alone does
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, NamedTuple

from federation.client.guard import AddressGuard
from federation.client.sessions import session_cache

if TYPE_CHECKING:
    from federation.client.dns import Dns, DnsQueries
    from federation.client.https import Https


class _Made(NamedTuple):
    dns: Dns
    kept: Https
    single: Https


class WebStack:
    """DNS, guarded connections and HTTP of one kind of client."""

    def __init__(
        self,
        reactor: Any,
        guard: AddressGuard,
        *,
        verify: bool,
        ca_files: Sequence[Path],
        dns: DnsQueries | None = None,
        random: Random | None = None,
    ) -> None:
        """Raises `BadCaFile`: files of authorities are read at once, so that mistakes are told.

        Parameters: `reactor` provides IReactorTCP and IReactorTime; `guard`, which addresses are
        connected to; `verify`, `ca_files`: see `federation.client.tls.TlsTrust`; `dns` answers
        instead of the machine's name servers; `random` draws among SRV records.
        """
        self._reactor = reactor
        self._guard = guard
        self._verify = verify
        self._ca_files = ca_files
        self._queries = dns
        self._random = random
        self._made: _Made | None = None
        self._sessions = session_cache()
        self.caches = (self._sessions,)
        if verify and ca_files:
            self._parts()

    @property
    def dns(self) -> Dns:
        """The names of servers."""
        return self._parts().dns

    @property
    def kept(self) -> Https:
        """HTTP on connections that serve several requests."""
        return self._parts().kept

    @property
    def single(self) -> Https:
        """HTTP on a connection for each request."""
        return self._parts().single

    async def close(self) -> None:
        """Close what is kept open. Requests under way are their callers' to cancel."""
        if self._made is not None:
            self._made.dns.close()
            await self._made.kept.close()
            await self._made.single.close()

    def _parts(self) -> _Made:
        if self._made is None:
            from federation.client.connecting import Connector
            from federation.client.dns import Dns
            from federation.client.https import Https
            from federation.client.tls import TlsTrust

            dns = Dns(self._reactor, self._queries)
            connector = Connector(
                self._reactor,
                dns,
                self._guard,
                TlsTrust(
                    verify=self._verify,
                    ca_files=self._ca_files,
                    sessions=self._sessions,
                    seconds=self._reactor.seconds,
                ),
                self._random or SystemRandom(),
            )
            self._made = _Made(
                dns,
                Https(self._reactor, connector, keep_alive=True),
                Https(self._reactor, connector, keep_alive=False),
            )
        return self._made
