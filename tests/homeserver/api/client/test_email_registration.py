"""Registering with an e-mail address, terms and tokens."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from storage import accepted_terms, threepids
from tests.homeserver.api.client.mail_case import (
    ADDRESS,
    SECRET,
    V3,
    MailCase,
    email_auth,
    link_of,
)
from tests.support.client import Answer
from tests.support.server import make_server
from tests.support.smtp import parts

REQUIRED = {"require_email": True, "without_verification": False}
TERMS = [
    {
        "name": "privacy",
        "version": "1.2",
        "texts": [
            {"language": "en", "title": "Privacy", "url": "https://hearth.test/en"},
            {"language": "de", "title": "Datenschutz", "url": "https://hearth.test/de"},
        ],
    }
]


class RegistrationCase(MailCase):
    async def register(
        self, auth: Any = None, username: str | None = "alice", **more: Any
    ) -> Answer:
        body: dict[str, Any] = {"username": username, "password": "wonderland", **more}
        if auth is not None:
            body["auth"] = auth
        return await self.server.client.post(f"{V3}/register", body)

    async def session(self) -> str:
        status, answer = await self.register()
        self.assertEqual(status, 401)
        session: str = answer["session"]
        return session


class EmailTest(RegistrationCase):
    async def test_register_with_an_address(self) -> None:
        """Shows UIA-13, UIA-5, ACC-5: the client asks with the same proof until the link is
        opened."""
        await self.prepare(registration=REQUIRED)
        status, asked = await self.register()
        self.assertEqual(asked["flows"], [{"stages": ["m.login.email.identity"]}])
        sid = await self.sid("register", "ALICE@Example.org")
        auth = email_auth(asked["session"], {"sid": sid, "client_secret": SECRET})
        status, answer = await self.register(auth)
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        self.assertEqual((await self.smtp.received(1))["To"], ADDRESS)
        self.assertEqual((await self.open_link()).status, 200)
        status, answer = await self.register(auth)
        self.assertEqual(status, 200, answer)
        listed = await self.server.client.get(f"{V3}/account/3pid", token=answer["access_token"])
        [contact] = listed.body["threepids"]
        self.assertEqual((contact["medium"], contact["address"]), ("email", ADDRESS))

    async def test_the_session_alone_polls(self) -> None:
        """Shows UIA-5."""
        await self.prepare(registration=REQUIRED)
        session = await self.session()
        creds = {"sid": await self.sid("register"), "client_secret": SECRET}
        await self.register(email_auth(session, creds))
        self.assertEqual((await self.register({"session": session}))[0], 401)
        await self.open_link()
        status, answer = await self.register({"session": session})
        self.assertEqual(status, 200, answer)

    async def test_an_address_that_need_not_be_given(self) -> None:
        """Shows UIA-13: with the dummy in the flow that would be the beginning of the other."""
        await self.prepare()
        _, asked = await self.register()
        flows = [flow["stages"] for flow in asked["flows"]]
        self.assertEqual(flows, [["m.login.dummy"], ["m.login.email.identity"]])
        status, _ = await self.register({"type": "m.login.dummy", "session": asked["session"]})
        self.assertEqual(status, 200)

    async def test_one_address_one_account(self) -> None:
        """Shows UIA-13, ACC-3, ACC-4."""
        await self.prepare(registration=REQUIRED)
        creds = await self.proved("register")
        self.assertEqual((await self.register(email_auth(None, creds)))[0], 200)
        status, answer = await self.register(email_auth(None, creds), "bob")
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        status, answer = await self.ask("register", "Alice@example.org", secret="other")
        self.assertEqual((status, answer["errcode"]), (400, "M_THREEPID_IN_USE"))
        self.assertEqual(len(self.smtp.messages), 1)

    async def test_one_address_two_at_once(self) -> None:
        """Shows ACC-3: two proofs of one address are under way."""
        await self.prepare(registration=REQUIRED)
        first = await self.sid("register", secret="one")
        one = link_of(parts(await self.smtp.received(1))[0])
        second = await self.sid("register", secret="two")
        two = link_of(parts(await self.smtp.received(2))[0])
        for link in (one, two):
            self.assertEqual((await self.press(link)).status, 200)
        status, _ = await self.register(email_auth(None, {"sid": first, "client_secret": "one"}))
        self.assertEqual(status, 200)
        creds = {"sid": second, "client_secret": "two"}
        status, answer = await self.register(email_auth(None, creds), "bob")
        self.assertEqual((status, answer["errcode"]), (400, "M_THREEPID_IN_USE"))
        available = await self.server.client.get(
            f"{V3}/register/available", query={"username": "bob"}
        )
        self.assertEqual(available, (200, {"available": True}))

    async def test_proofs_of_others(self) -> None:
        """Shows UIA-13: session ID and secret belong together, and to one purpose."""
        await self.prepare(registration=REQUIRED)
        creds = await self.proved("register")
        for wrong in (
            {**creds, "client_secret": "another"},
            {**creds, "sid": "another"},
            {"sid": await self.sid("account/3pid", "b@example.org"), "client_secret": SECRET},
        ):
            status, answer = await self.register(email_auth(None, wrong))
            self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        for malformed, errcode in (
            ({"sid": 1, "client_secret": SECRET}, "M_BAD_JSON"),
            ({"sid": creds["sid"]}, "M_MISSING_PARAM"),
            ({"sid": creds["sid"], "client_secret": "<b>"}, "M_INVALID_PARAM"),
            (None, "M_MISSING_PARAM"),
            ([], "M_BAD_JSON"),
        ):
            auth: Any = {"type": "m.login.email.identity", "threepid_creds": malformed}
            status, answer = await self.register(auth)
            self.assertEqual((status, answer["errcode"]), (400, errcode), malformed)

    async def test_a_proof_for_registering_opens_no_account(self) -> None:
        """Shows UIA-3: what a link says it is for is all that it does."""
        await self.prepare(registration=REQUIRED)
        creds = await self.proved("register")
        body = {"new_password": "stolen", "auth": email_auth(None, creds)}
        status, answer = await self.server.client.post(f"{V3}/account/password", body)
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))


class AskingTest(RegistrationCase):
    async def test_once_for_each_attempt(self) -> None:
        """Shows UIA-13, ACC-6: asked again with the same number, nothing is sent."""
        await self.prepare()
        _, answer = await self.ask("register")
        sid = answer.pop("sid")
        self.assertEqual(answer, {}, "the link does it all: there is nothing to hand in")
        self.assertEqual(await self.sid("register"), sid)
        self.assertEqual(await self.sid("register", attempt=0), sid)
        await self.smtp.received(1)
        self.assertEqual(await self.sid("register", attempt=2), sid)
        text, _ = parts(await self.smtp.received(2))
        self.assertNotEqual(await self.sid("register", secret="other"), sid)
        await self.smtp.received(3)
        first, _ = parts(self.smtp.messages[0])
        for link in (link_of(first), link_of(text)):
            self.assertEqual((await self.press(link)).status, 200)

    async def test_what_is_asked_wrongly(self) -> None:
        """Shows ACC-4."""
        await self.prepare({"allowed_domains": ["Example.org"]})
        for email in ("alice", "a@b\r\nBcc: c@d", "A <a@b>", "a@b,c@d", "", "a" * 10_000 + "@b"):
            status, answer = await self.ask("register", email)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"), email)
        for option in (
            {"secret": ""},
            {"secret": "<script>"},
            {"secret": "x" * 256},
            {"attempt": -1},
            {"attempt": 2**40},
            {"next_link": "javascript:alert(1)"},
            {"next_link": "https://a/\r\nSet-Cookie: x=y"},
            {"next_link": "https://user@evil.example/"},
            {"next_link": "/elsewhere"},
        ):
            status, answer = await self.ask("register", **option)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"), option)
        status, answer = await self.ask("register", "alice@example.com")
        self.assertEqual((status, answer["errcode"]), (403, "M_THREEPID_DENIED"))
        self.assertEqual((await self.ask("register")).status, 200)
        self.assertEqual((await self.smtp.received(1))["To"], ADDRESS)

    async def test_telephone_numbers(self) -> None:
        """Shows ACC-4."""
        await self.prepare()
        body = {
            "client_secret": SECRET,
            "country": "GB",
            "phone_number": "07700900000",
            "send_attempt": 1,
        }
        for what in ("register", "account/password", "account/3pid"):
            status, answer = await self.server.client.post(f"{V3}/{what}/msisdn/requestToken", body)
            self.assertEqual(status, 400)
            self.assertEqual(answer["errcode"], "M_THREEPID_MEDIUM_NOT_SUPPORTED")

    async def test_concealed(self) -> None:
        """Shows UIA-13: only the owner of an address learns that it is registered."""
        await self.prepare({"conceal_registered": True})
        await self.with_email()
        sid = await self.sid("register", secret="eve")
        text, html = parts(await self.smtp.received(2))
        self.assertIn("belongs to an account there already", text)
        self.assertNotIn("token=", text + html)
        await self.sid("account/password", "nobody@example.org")
        text, _ = parts(await self.smtp.received(3))
        self.assertIn("no account", text)
        auth = email_auth(None, {"sid": sid, "client_secret": "eve"})
        self.assertEqual((await self.register(auth, "eve"))[0], 401)

    async def test_limits(self) -> None:
        """Shows UIA-13: neither one asker nor one address gets many messages."""
        await self.prepare(
            rate_limits={"enabled": True, "email": {"per_second": 0.001, "burst": 2}}
        )
        client = self.server.client
        body = {"client_secret": SECRET, "email": ADDRESS, "send_attempt": 1}
        path = f"{V3}/register/email/requestToken"
        statuses = []
        for number in range(4):
            answer = await client.full(
                "POST", path, {**body, "send_attempt": number + 1}, address=f"192.0.2.{number}"
            )
            statuses.append(answer.status)
        self.assertEqual(statuses, [200, 200, 429, 429])
        self.assertGreater(int(answer.headers["retry-after"]), 1)
        for number in range(3):
            other = {**body, "email": f"b{number}@example.org"}
            answer = await client.full("POST", path, other, address="192.0.2.99")
        self.assertEqual(answer.status, 429)

    async def test_without_a_mail_server(self) -> None:
        """Shows ACC-4."""
        self.server = await make_server(self)
        for what in ("register", "account/password", "account/3pid"):
            status, answer = await self.ask(what)
            self.assertEqual(status, 400)
            self.assertEqual(answer["errcode"], "M_THREEPID_MEDIUM_NOT_SUPPORTED")


class LinkTest(RegistrationCase):
    async def test_looking_proves_nothing(self) -> None:
        """Shows UIA-13: programs that look into mail follow links."""
        await self.prepare(registration=REQUIRED)
        creds = {"sid": await self.sid("register"), "client_secret": SECRET}
        link = link_of(parts(await self.smtp.received(1))[0])
        path = link.removeprefix("https://hearth.test")
        page = await self.server.client.full("GET", path)
        self.assertEqual(page.status, 200)
        self.assertEqual(page.headers["referrer-policy"], "no-referrer")
        self.assertEqual((await self.register(email_auth(None, creds)))[0], 401)

    async def test_wrong_tokens(self) -> None:
        """Shows UIA-13: after a few wrong tokens the right one is of no use any more."""
        await self.prepare()
        await self.sid("register")
        link = link_of(parts(await self.smtp.received(1))[0])
        fields = dict(parse_qsl(urlsplit(link).query))
        for name in ("sid", "client_secret", "token"):
            self.assertEqual((await self.submit(**{**fields, name: "x"})).status, 400)
        self.assertEqual((await self.submit(**fields)).status, 200)
        await self.sid("register", secret="again")
        again = dict(parse_qsl(urlsplit(link_of(parts(await self.smtp.received(2))[0])).query))
        for number in range(10):
            self.assertEqual((await self.submit(**{**again, "token": str(number)})).status, 400)
        self.assertEqual((await self.submit(**again)).status, 400)

    async def test_hostile_forms(self) -> None:
        await self.prepare()
        post = self.server.client.full
        page = "/_matrix/static/client/email/validate"
        for body in (b"", b"\xff", b"sid=%00&client_secret=a&token=b", b"&" * 100, b"sid=" * 30):
            self.assertEqual((await post("POST", page, body=body)).status, 400, body)
        query = {"sid": '"><script>x</script>', "client_secret": "'", "token": "</form>"}
        answer = await self.server.client.full("GET", page, query=query)
        self.assertNotIn(b"<script>x", answer.body)
        self.assertIn(b"&#34;&gt;&lt;script&gt;", answer.body)
        self.assertIn("default-src 'none'", answer.headers["content-security-policy"])

    async def test_where_to_go_on(self) -> None:
        await self.prepare()
        await self.sid("register", next_link="https://client.example/?a=b#c")
        answer = await self.open_link()
        self.assertEqual(answer.status, 302)
        self.assertEqual(answer.headers["location"], "https://client.example/?a=b#c")


class StagesTest(RegistrationCase):
    async def test_terms(self) -> None:
        """Shows UIA-12."""
        await self.prepare(registration={"terms": TERMS, **REQUIRED})
        _, asked = await self.register()
        stages = ["m.login.terms", "m.login.email.identity"]
        self.assertEqual(asked["flows"], [{"stages": stages}])
        self.assertEqual(
            asked["params"]["m.login.terms"]["policies"]["privacy"],
            {
                "version": "1.2",
                "en": {"name": "Privacy", "url": "https://hearth.test/en"},
                "de": {"name": "Datenschutz", "url": "https://hearth.test/de"},
            },
        )
        session = asked["session"]
        status, answer = await self.register({"type": "m.login.terms", "session": session})
        self.assertEqual((status, answer["completed"]), (401, ["m.login.terms"]))
        creds = await self.proved("register")
        status, answer = await self.register(email_auth(session, creds))
        self.assertEqual(status, 200, answer)
        db = self.server.homeserver.db
        accepted = await db.read(accepted_terms.get, answer["user_id"])
        self.assertEqual(accepted, {"privacy": "1.2"})

    async def test_stages_in_order(self) -> None:
        """Shows UIA-2."""
        await self.prepare(registration={"terms": TERMS, "require_token": True, **REQUIRED})
        session = await self.session()
        creds = await self.proved("register")
        status, answer = await self.register(email_auth(session, creds))
        self.assertEqual((status, answer["errcode"]), (401, "M_FORBIDDEN"))
        owner = await self.server.homeserver.db.read(threepids.get_user, "email", ADDRESS)
        self.assertIsNone(owner)

    async def test_tokens_are_tried_within_limits(self) -> None:
        """Shows UIA-11."""
        await self.prepare(
            registration={"require_token": True, "require_email": True},
            rate_limits={"enabled": True, "token_check": {"per_second": 0.001, "burst": 3}},
        )
        path = "/_matrix/client/v1/register/m.login.registration_token/validity"
        statuses = []
        for number in range(5):
            answer = await self.server.client.get(path, query={"token": f"t{number}"})
            statuses.append(answer.status)
        self.assertEqual(statuses, [200, 200, 200, 429, 429])
        # As stages they count as registrations.
        statuses = []
        for number in range(7):
            auth = {"type": "m.login.registration_token", "token": f"t{number}"}
            statuses.append((await self.register(auth))[0])
        self.assertEqual(statuses[-1], 429)
