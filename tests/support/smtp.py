"""A real SMTP server in a thread, which keeps the messages that it takes."""

from __future__ import annotations

import email
import logging
import socket
import ssl
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from twisted.trial.unittest import TestCase

from tests.support.network import authority, ca_file, eventually
from tests.support.services import free_port

USER, PASSWORD = "hearth", "a password"


logging.getLogger("mail.log").setLevel(logging.CRITICAL)


class _Controller(Controller):
    def _trigger_server(self) -> None:
        """Try the port once, whatever the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection((self.hostname, self.port)) as plain:
            if self.ssl_context is None:
                plain.recv(1)
            else:
                with context.wrap_socket(plain) as encrypted:
                    encrypted.recv(1)


class SmtpServer:
    """Listens on loopback until the test ends.

    `tls`: "starttls", "tls" or "none". `refuse`: answers to the next messages, such as
    "550 No". `host` is the name in its certificate. With `login` it wants `USER` and `PASSWORD`.
    """

    def __init__(
        self, test: TestCase, *, tls: str = "none", host: str = "localhost", login: bool = False
    ) -> None:
        self.port = free_port()
        self.tls = tls
        self.messages: list[EmailMessage] = []
        self.receivers: list[list[str]] = []
        self.encrypted: list[bool] = []
        self.refuse: list[str] = []
        options: dict[str, Any] = {}
        if tls != "none":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority().issue_cert(host).configure_cert(context)
            if tls == "tls":
                options["ssl_context"] = context
            else:
                options.update(tls_context=context, require_starttls=True)
        if login:
            options.update(auth_required=True, authenticator=self._authenticate)
        self._controller = _Controller(self, hostname="127.0.0.1", port=self.port, **options)
        self._controller.start()
        test.addCleanup(self._controller.stop, True)

    @property
    def config(self) -> dict[str, Any]:
        """The section of the configuration of a homeserver that sends through this."""
        return {
            "smtp_host": "localhost",
            "smtp_port": self.port,
            "tls": self.tls,
            "ca_files": [str(ca_file())],
            "from": "Hearth <noreply@hearth.test>",
        }

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            return self.refuse.pop(0)
        message = email.message_from_bytes(envelope.content, policy=cast(Any, default))
        self.receivers.append(envelope.rcpt_tos)
        self.encrypted.append(session.ssl is not None or self.tls == "tls")
        self.messages.append(cast(EmailMessage, message))
        return "250 OK"

    async def received(self, count: int) -> EmailMessage:
        """The last message, once there are `count` of them."""
        await eventually(lambda: len(self.messages) >= count, f"{count} messages")
        assert len(self.messages) == count, [str(each["To"]) for each in self.messages]
        return self.messages[-1]

    def _authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        wanted = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=data == wanted, handled=False)


def parts(message: EmailMessage) -> tuple[str, str]:
    """The text and the HTML of a message."""
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None and html is not None
    found = [part.get_content().replace("\r\n", "\n") for part in (text, html)]
    return found[0], found[1]
