"""Messages, from template to a real mail server."""

from __future__ import annotations

import smtplib
import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

import config as hearth_config
from config.model import Email
from homeserver.outbound import mail
from homeserver.outbound.mail import Mailer, Templates
from storage.jobs import Job
from tests.support.network import eventually
from tests.support.server import make_server
from tests.support.services import free_port
from tests.support.smtp import PASSWORD, USER, SmtpServer, parts

LINK = "https://hearth.test/x?sid=1&token=2"
FAR = 2**50


def email_config(**section: Any) -> Email:
    found = hearth_config.from_dict(
        {"server_name": "hearth.test", "public_base_url": "https://hearth.test", "email": section}
    ).email
    assert found is not None
    return found


def job(to: str = "bob@example.org", **values: str) -> Job:
    payload = {"template": "add", "to": to, "values": {"link": LINK, **values}, "expires_ts": FAR}
    return Job("1", "mail", payload, 1)


class SendingTest(TestCase):
    timeout = 60

    def mailer(self, server: SmtpServer, **section: Any) -> Mailer:
        mailer = Mailer(reactor, email_config(**{**server.config, **section}), "hearth.test")
        self.addCleanup(mailer.close)
        return mailer

    async def test_a_message_in_text_and_html(self) -> None:
        server = SmtpServer(self)
        await self.mailer(server).run(job())
        message = await server.received(1)
        self.assertEqual(server.receivers, [["bob@example.org"]])
        self.assertEqual(message["To"], "bob@example.org")
        self.assertEqual(message["From"], "Hearth <noreply@hearth.test>")
        self.assertEqual(message["Subject"], "Confirm your e-mail address for hearth.test")
        self.assertTrue(message["Date"] and message["Message-ID"])
        text, html = parts(message)
        self.assertIn(f"\n{LINK}\n", text)
        self.assertIn('href="https://hearth.test/x?sid=1&amp;token=2"', html)

    async def test_starttls_and_login(self) -> None:
        server = SmtpServer(self, tls="starttls", login=True)
        mailer = self.mailer(server, smtp_user=USER, smtp_password=PASSWORD)
        await mailer.run(job())
        await server.received(1)
        self.assertEqual(server.encrypted, [True])
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            await self.mailer(server, smtp_user=USER, smtp_password="wrong").run(job())

    async def test_tls_from_the_start(self) -> None:
        server = SmtpServer(self, tls="tls")
        await self.mailer(server).run(job())
        await server.received(1)

    async def test_certificates_are_verified(self) -> None:
        for tls in ("starttls", "tls"):
            other = SmtpServer(self, tls=tls, host="mail.example.org")
            with self.assertRaises(ssl.SSLCertVerificationError):
                await self.mailer(other).run(job())
            unknown = SmtpServer(self, tls=tls)
            with self.assertRaises(ssl.SSLCertVerificationError):
                await self.mailer(unknown, ca_files=[]).run(job())
            self.assertEqual(other.messages + unknown.messages, [])

    async def test_nothing_goes_out_unencrypted_where_tls_is_wanted(self) -> None:
        server = SmtpServer(self)
        with self.assertRaises(smtplib.SMTPNotSupportedError):
            await self.mailer(server, tls="starttls").run(job())
        self.assertEqual(server.messages, [])

    async def test_what_is_refused_for_good_is_dropped(self) -> None:
        server = SmtpServer(self)
        server.refuse = ["550 No such user"]
        await self.mailer(server).run(job())
        server.refuse = ["451 Later"]
        with self.assertRaises(smtplib.SMTPDataError):
            await self.mailer(server).run(job())
        self.assertEqual(server.messages, [])

    async def test_a_silent_server_keeps_nothing_from_ending(self) -> None:
        self.patch(mail, "CLOSING_S", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            section = {"smtp_port": silent.getsockname()[1], "tls": "none", "from": "a@b.test"}
            mailer = Mailer(reactor, email_config(**section), "hearth.test")
            sending = Deferred.fromCoroutine(mailer.run(job()))
            accepted, _ = await deferToThread(silent.accept)
            await mailer.close()
            self.assertFalse(sending.called)
            accepted.close()
            with self.assertRaises(smtplib.SMTPServerDisconnected):
                await sending

    async def test_too_late(self) -> None:
        server = SmtpServer(self)
        late = job()
        late.payload["expires_ts"] = 1
        await self.mailer(server).run(late)
        self.assertEqual(server.messages, [])

    async def test_addresses_that_are_more_than_one(self) -> None:
        server = SmtpServer(self)
        for to in (
            "bob@example.org\r\nBcc: eve@example.org",
            "bob@example.org, eve@example.org",
            "Bob <bob@example.org>",
        ):
            await self.mailer(server).run(job(to))
        self.assertEqual(server.messages, [])

    async def test_html_and_line_breaks_in_values(self) -> None:
        server = SmtpServer(self)
        bad = 'x"><script>alert(1)</script>\r\nBcc: eve@example.org\n\nNew paragraph'
        await self.mailer(server).run(job(link=bad, server_name=f"<b>hearth</b>\r\n{bad}"))
        message = await server.received(1)
        self.assertEqual(server.receivers, [["bob@example.org"]])
        self.assertNotIn("Bcc", message)
        self.assertEqual(len(message.get_all("Subject", [])), 1)
        text, html = parts(message)
        self.assertNotIn("<script", html)
        self.assertNotIn("<b>", html)
        self.assertIn("&lt;script&gt;", html)
        self.assertNotIn("\nBcc", text)


class JobTest(TestCase):
    timeout = 60

    async def test_a_message_survives_the_absence_of_the_mail_server(self) -> None:
        port = free_port()
        section = {"smtp_port": port, "tls": "none", "from": "noreply@hearth.test"}
        server = await make_server(self, email=section)
        hs = server.homeserver
        mailer = hs.services[Mailer]
        await hs.db.write(mailer.enqueue_in, "add", "bob@example.org", {"link": LINK}, FAR)

        def failed_once(txn: Any) -> Any:
            return txn.value("SELECT last_error FROM jobs WHERE kind = ?", ("mail",))

        error = await eventually(lambda: hs.db.read(failed_once))
        self.assertIn("ConnectionRefused", error)
        self.assertNotIn(LINK, error)


class TemplateTest(TestCase):
    def test_own_templates_go_first(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "add.txt").write_text("Hallo {{ server_name }}\n\n{{ link }}\n")
        message = Templates(directory).render("add", "b@x", {"server_name": "s", "link": LINK})
        self.assertEqual((message.subject, message.text), ("Hallo s", LINK))
        self.assertIn("Confirm this address", message.html)

    def test_all_have_both_forms(self) -> None:
        values = {"server_name": "s", "link": LINK}
        for name in ("register", "password", "add", "taken", "unknown"):
            message = Templates().render(name, "b@x", values)
            self.assertTrue(message.subject)
            self.assertIn("</html>", message.html)
