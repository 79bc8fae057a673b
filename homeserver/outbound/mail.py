"""E-mail: messages are rendered from templates and sent by durable jobs.

A message is enqueued in the transaction that it speaks of, and sent by any process. What the mail
server refuses for good is dropped; what fails otherwise is tried again until the message has lost
its meaning (`expires_ts`).
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from config.model import Email
from homeserver.core.threepids import InvalidAddress, canonical_email
from homeserver.core.types import JsonObject
from storage import jobs
from storage.jobs import Job
from storage.transaction import Transaction

KIND = "mail"
TIMEOUT_S = 30.0
CLOSING_S = 5.0
_MAX_SUBJECT = 200

_log = structlog.get_logger(__name__)


class Refused(Exception):
    """The mail server will never take this message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A rendered message to one address."""

    to: str
    subject: str
    text: str
    html: str


class Templates:
    """Messages as Jinja2 templates: NAME.txt, whose first line is the subject, and NAME.html.

    Values are escaped in HTML, and cannot begin a new line in the text: neither a new header nor
    a new sentence comes from them. An own directory goes before the templates of the server.
    """

    def __init__(self, directory: Path | None = None) -> None:
        from jinja2 import (
            ChoiceLoader,
            Environment,
            FileSystemLoader,
            PackageLoader,
            StrictUndefined,
        )

        loaders: list[Any] = [PackageLoader("homeserver.outbound", "templates")]
        if directory is not None:
            loaders.insert(0, FileSystemLoader(directory))
        self._environment = Environment(
            loader=ChoiceLoader(loaders),
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, name: str, to: str, values: JsonObject) -> Message:
        """A message. Values are texts, numbers, and lists and objects of them. Raises
        jinja2.TemplateError."""
        plain = _plain(values)
        text = self._environment.get_template(f"{name}.txt").render(plain)
        html = self._environment.get_template(f"{name}.html").render(plain)
        subject, _, rest = text.partition("\n")
        return Message(to, _one_line(subject)[:_MAX_SUBJECT], rest.lstrip("\n"), html)


class Mailer:
    """Enqueues messages and, as a handler of jobs, sends them by SMTP in a thread."""

    def __init__(self, reactor: Any, config: Email, server_name: str) -> None:
        """Raises OSError or ssl.SSLError if a file of `ca_files` cannot be read."""
        self._reactor = reactor
        self._config = config
        self._server_name = server_name
        self._templates = Templates(config.templates)
        self._pool = ThreadPool(0, 2, "mail")
        # A mail server that keeps silent does not keep the process from ending.
        daemons: Any = partial(Thread, daemon=True)
        self._pool.threadFactory = daemons
        self._started = False
        self._tls = ssl.create_default_context()
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        for file in config.ca_files:
            self._tls.load_verify_locations(file)

    def enqueue_in(
        self,
        txn: Transaction,
        template: str,
        to: str,
        values: JsonObject,
        expires_ts: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Have a message sent once the transaction is committed; pointless after `expires_ts`.

        `headers` besides the usual ones.
        """
        payload: JsonObject = {"template": template, "to": to, "values": values}
        payload |= {"expires_ts": expires_ts, "headers": dict(headers or {})}
        jobs.enqueue(txn, KIND, payload, self._now())

    async def run(self, job: Job) -> None:
        """Send the message of a job. Raises OSError or SMTPException where it may go later."""
        payload = job.payload
        if payload["expires_ts"] <= self._now():
            _log.warning("A message was not sent in time", template=payload["template"])
            return
        values = {"server_name": self._server_name, **payload["values"]}
        message = self._templates.render(payload["template"], payload["to"], values)
        try:
            built = self._built(message, job.job_id, payload.get("headers", {}))
            await self._in_thread(self._send, built)
        except Refused as refusal:
            _log.warning("A message was refused", template=payload["template"], reason=str(refusal))

    def close(self) -> Deferred[None]:
        """End the threads, after the messages they are sending, or a few seconds."""
        closed: Deferred[None] = Deferred()
        if not self._started:
            closed.callback(None)
            return closed
        self._started = False
        timer = self._reactor.callLater(CLOSING_S, closed.callback, None)

        def ended() -> None:
            if timer.active():
                timer.cancel()
                closed.callback(None)

        def end() -> None:
            self._pool.stop()
            self._reactor.callFromThread(ended)

        Thread(target=end, name="mail ends", daemon=True).start()
        return closed

    def _built(self, message: Message, job_id: str, headers: Mapping[str, str]) -> EmailMessage:
        """Raises Refused for an address that cannot be one."""
        try:
            to = canonical_email(message.to)
        except InvalidAddress as error:
            raise Refused(str(error)) from None
        built = EmailMessage(policy=SMTP)
        name, sender = parseaddr(self._config.from_)
        built["From"] = Address(display_name=name, addr_spec=sender)
        built["To"] = Address(addr_spec=to)
        built["Subject"] = message.subject
        built["Date"] = format_datetime(datetime.fromtimestamp(self._now() / 1000, UTC))
        # The same in each attempt, so that a message that came twice is known for one.
        built["Message-ID"] = f"<{job_id}@{sender.rpartition('@')[2]}>"
        # No answer of a machine is wanted (RFC 3834).
        built["Auto-Submitted"] = "auto-generated"
        for name, value in headers.items():
            built[name] = value
        built.set_content(message.text)
        built.add_alternative(message.html, subtype="html")
        return built

    def _send(self, message: EmailMessage) -> None:
        """In a thread. Raises Refused for what a later attempt would not change."""
        config = self._config
        try:
            with self._connected() as smtp:
                if config.smtp_user is not None:
                    smtp.login(config.smtp_user, config.smtp_password or "")
                smtp.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            if all(500 <= code < 600 for code, _ in error.recipients.values()):
                raise Refused(f"recipients: {list(error.recipients.values())}") from None
            raise
        except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
            if 500 <= error.smtp_code < 600:
                raise Refused(f"{error.smtp_code} {error.smtp_error!r}") from None
            raise

    def _connected(self) -> smtplib.SMTP:
        config = self._config
        if config.tls == "tls":
            return smtplib.SMTP_SSL(
                config.smtp_host, config.smtp_port, timeout=TIMEOUT_S, context=self._tls
            )
        smtp = smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=TIMEOUT_S)
        if config.tls == "starttls":
            try:
                # Raises where the server has no TLS: nothing goes out in the clear then.
                smtp.starttls(context=self._tls)
            except BaseException:
                smtp.close()
                raise
        return smtp

    async def _in_thread(self, fn: Any, *args: Any) -> None:
        if not self._started:
            self._started = True
            self._pool.start()
        await deferToThreadPool(self._reactor, self._pool, fn, *args)

    def _now(self) -> int:
        return int(self._reactor.seconds() * 1000)


def _plain(value: Any) -> Any:
    """A value all of whose texts are one line."""
    if isinstance(value, str):
        return _one_line(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _one_line(value: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())
