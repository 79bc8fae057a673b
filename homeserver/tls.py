"""TLS of listeners, with certificates that can be replaced while the server runs."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from config.model import Tls
from homeserver.startup import CannotStart


class _TlsFactory(TLSMemoryBIOFactory):
    protocol = TLSMemoryBIOProtocol
    """Encrypts at once: an answer is one piece, and there is nothing to gather until the event
    loop's next turn."""

    def buildProtocol(self, addr: Any) -> Any:
        """None, so that the connection is closed, if the factory wants no more; Twisted's own would
        keep it, with nobody to end it."""
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        return self.protocol(self, inner)  # type: ignore[no-untyped-call]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Makes the TLS side of connections from the files of the configuration.

    Raises CannotStart if they cannot be used.
    """

    def __init__(self, files: Tls) -> None:
        self._files = files
        self._context = self._load()

    def _load(self) -> SSL.Context:
        files = self._files
        for path in (files.certificate, files.private_key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise CannotStart(f"Cannot read {path}: {error.strerror}.") from None
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        try:
            context.use_certificate_chain_file(str(files.certificate))
            context.use_privatekey_file(str(files.private_key))
            context.check_privatekey()
        except SSL.Error as error:
            raise CannotStart(
                f"Cannot use the certificate {files.certificate} with the private key "
                f"{files.private_key}: {_reasons(error)}."
            ) from None
        return context

    def reload(self) -> None:
        """Read the files anew, for new connections. Raises CannotStart, keeping the old ones."""
        self._context = self._load()

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def wrap(self, factory: Any) -> IProtocolFactory:
        """The factory that speaks TLS in front of `factory`."""
        wrapped: IProtocolFactory = _TlsFactory(self, False, factory)
        return wrapped


def _reasons(error: SSL.Error) -> str:
    reasons = [entry[2] for entry in (error.args[0] if error.args else ()) if entry[2]]
    return ", ".join(reasons) or "they are not PEM files of a certificate and its key"
