"""TLS to other servers: one context for all, each connection checked for its own name.

Who is connected to again within a while resumes the session (RFC 8446, 2.2), which spares both
sides the certificates: the other side proves with it that it is who proved the name before. What
was proved for one name is used for no other.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from federation.client.errors import BadCaFile
from federation.client.sessions import SessionCache, session_cache

# Neither has types.
_platform_trust: Any = platformTrust
_Failure: Any = Failure

_ESTABLISHED = b"SSL negotiation finished successfully"
_log = structlog.get_logger(__name__)


SESSION_LIVES_S = 3600.0
"""How long after its certificate was shown a session may be resumed; then it is shown again."""


class TlsTrust:
    """Whom to believe: the system's authorities and those of `ca_files`; TLS 1.2 or newer."""

    def __init__(
        self,
        *,
        verify: bool = True,
        ca_files: Sequence[Path] = (),
        sessions: SessionCache | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `BadCaFile`. With `verify` False any certificate is taken. `sessions` keeps those
        that can be resumed, `seconds` is the clock that tells how old they are."""
        self._verify = verify
        self._sessions = _Sessions(session_cache() if sessions is None else sessions, seconds)
        self._loaded: SSL.Context | None = None
        if verify and ca_files:
            self._loaded = self._context()
            for file in ca_files:
                try:
                    self._loaded.load_verify_locations(str(file))
                except SSL.Error as error:
                    raise BadCaFile(f"Cannot read certificate authorities from {file}") from error

    def _context(self) -> SSL.Context:
        """The context. The system's authorities take 40 ms and a megabyte: who connects to nobody
        does not read them."""
        if self._loaded is None:
            options = CertificateOptions(
                trustRoot=_platform_trust() if self._verify else None,
                insecurelyLowerMinimumTo=TLSVersion.TLSv1_2,
                enableSessionTickets=True,
            )
            self._loaded = options.getContext()
            # OpenSSL itself remembers none: it would not know for which name.
            self._loaded.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        return self._loaded

    def connections_to(self, name: str) -> _Connections:
        """Makes connections whose server must prove `name`, a DNS name or an IP address.

        Raises `ValueError` for a name that no certificate can have.
        """
        return _Connections(self._context(), name, self._verify, self._sessions)


@implementer(IOpenSSLClientConnectionCreator)
class _Connections:
    def __init__(self, context: SSL.Context, name: str, verify: bool, sessions: _Sessions) -> None:
        self._context = context
        self._name = name
        self._sessions = sessions
        self._verify = verify
        self._identity: DNS_ID | IPAddress_ID
        self._server_name_indication: bytes | None = None
        try:
            ipaddress.ip_address(name)
        except ValueError:
            self._identity = DNS_ID(name)
            self._server_name_indication = name.encode("ascii")
        else:
            # RFC 6066: addresses are not sent as SNI.
            self._identity = IPAddress_ID(name)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = _Connection(self._context, None)
        if self._server_name_indication is not None:
            connection.set_tlsext_host_name(self._server_name_indication)
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER, _checking(self._identity, tlsProtocol))
        self._sessions.resume(connection, self._name)
        return connection


class _Connection(SSL.Connection):
    """Keeps its session when it is closed: tickets come at any time after the handshake."""

    keep: Callable[[SSL.Session], object] | None = None

    def shutdown(self) -> bool:
        keep, self.keep = self.keep, None
        # One of which the certificate was refused does not come that far.
        if keep is not None and self.get_state_string() == _ESTABLISHED:
            session = self.get_session()
            if session is not None:
                keep(session)
        return super().shutdown()


class _Sessions:
    """Sessions that can be resumed, by the name that was proved when they began."""

    def __init__(self, cache: SessionCache, seconds: Callable[[], float]) -> None:
        self._cache = cache
        self._seconds = seconds

    def resume(self, connection: _Connection, name: str) -> None:
        """Let a connection resume the last session, if there is one, and keep the next one."""
        now = proved = self._seconds()
        # Once only (RFC 8446, C.4): the other side gives another one.
        found = self._cache.pop(name, None)
        if found is not None and now - found[1] < SESSION_LIVES_S:
            session, proved = found
            connection.set_session(session)
        connection.keep = lambda session: self._cache.put(name, (session, proved))


def _checking(
    identity: DNS_ID | IPAddress_ID, protocol: TLSMemoryBIOProtocol
) -> Callable[[SSL.Connection, X509, int, int, int], bool]:
    """OpenSSL's callback: also checks the name, while the handshake can still be refused."""
    told: Any = protocol

    def check(_: SSL.Connection, certificate: X509, __: int, depth: int, valid: int) -> bool:
        nonlocal told
        if depth != 0 or not valid:
            return bool(valid)
        try:
            verify_service_identity(extract_patterns(certificate), [identity], [])
        except VerificationError:
            if told is not None:
                told.failVerification(_Failure())
            return False
        except Exception:
            # OpenSSL would swallow it.
            _log.exception("a certificate could not be checked")
            return False
        finally:
            # The connection holds this function, and the protocol the connection.
            told = None
        return True

    return check
