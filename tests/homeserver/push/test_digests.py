"""E-mail about missed messages, through a real SMTP server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from homeserver.push.delivery import PushDelivery
from storage import push_queue, pushers, threepids
from storage.transaction import Transaction
from tests.homeserver.api.client.test_receipts import read
from tests.homeserver.push.test_delivery import PushTestCase
from tests.homeserver.rooms.test_unread import mention
from tests.support.network import eventually
from tests.support.server import User
from tests.support.smtp import SmtpServer, parts

ADDRESS = "bob@example.org"
HOSTILE = '<script>alert("1")</script>\r\nBcc: everybody@example.org\r\n\r\n{{ 7 * 7 }}\u202e'


class MailTest(PushTestCase):
    async def mail(self, *, pushed: bool = True, **section: Any) -> SmtpServer:
        smtp = SmtpServer(self)
        settings = {"delay": "1h", "pause": "1h", **section}
        await self.meet(pushed=False, email=smtp.config, push={"mail": settings})
        if pushed:
            await self.own(self.bob)
            await self.bob.ok("POST", "/pushers/set", self.pusher())
        return smtp

    async def own(self, user: User, address: str = ADDRESS) -> None:
        """Make an address the user's."""
        db = self.server.homeserver.db
        await db.write(threepids.add, "email", address, user.user_id, 1)

    def pusher(self, **changes: Any) -> dict[str, Any]:
        return {
            "kind": "email",
            "app_id": "m.email",
            "pushkey": ADDRESS,
            "app_display_name": "E-mail",
            "device_display_name": ADDRESS,
            "lang": "en",
            "data": {},
            **changes,
        }

    async def send_now(self, count: int) -> None:
        """Once so much waits, the time has come."""
        await self.wait_for(count)

        def due(txn: Transaction) -> None:
            txn.execute("UPDATE push_work SET due_ts = 1")

        await self.server.homeserver.db.write(due)
        self.server.homeserver.services[PushDelivery].wake()

    async def wait_for(self, count: int) -> None:
        """Until so many events wait."""

        async def all_wait() -> bool:
            return await self.queued() == count

        await eventually(all_wait, f"{count} events that wait")

    async def queued(self) -> int:
        return (await self.server.homeserver.db.read(push_queue.totals))[0]

    async def test_digest(self) -> None:
        smtp = await self.mail()
        first = await self.alice.send(self.room_id, "read already")
        other = await self.alice.create_room(preset="public_chat", name="Attic")
        await self.bob.join(other)
        await read(self.bob, self.room_id, first)
        await self.alice.send(self.room_id, "one & <b>two</b>")
        await self.alice.send(other, {"msgtype": "m.image", "body": "x.png", "url": "mxc://a/b"})
        last = await self.alice.send(other, {"ciphertext": "x"}, "m.room.encrypted")
        await self.send_now(4)
        message = await smtp.received(1)
        self.assertEqual(smtp.receivers, [[ADDRESS]])
        self.assertEqual(message["Subject"], "3 unread messages in 2 rooms")
        self.assertEqual(message["Auto-Submitted"], "auto-generated")
        text, html = parts(message)
        self.assertIn("Lounge\n  Alice: one & <b>two</b>\n", text)
        self.assertIn("  Alice: sent a picture\n  Alice: sent an encrypted message\n", text)
        self.assertNotIn("read already", text)
        self.assertIn("<b>Alice</b>: one &amp; &lt;b&gt;two&lt;/b&gt;", html)
        self.assertIn(f"https://matrix.to/#/{other.replace('!', '%21')}/{'%24' + last[1:]}", html)
        self.assertEqual(await self.queued(), 0)
        # The next one is not before the pause.
        await self.alice.send(self.room_id, "again")
        await eventually(lambda: self.queued(), "a message that waits")
        self.assertEqual(len(smtp.messages), 1)

    async def test_nothing_that_was_read_in_time(self) -> None:
        smtp = await self.mail()
        event_id = await self.alice.send(self.room_id)
        gone = await self.alice.send(self.room_id, "regretted")
        await self.wait_for(2)
        await read(self.bob, self.room_id, event_id)
        await self.alice.ok("PUT", f"/rooms/{self.room_id}/redact/{gone}/r1", {})
        await self.send_now(2)

        def over(txn: Any) -> bool:
            decided = txn.value("SELECT COUNT(*) FROM push_log WHERE outcome = 'not needed'")
            return decided > 0 and push_queue.totals(txn)[0] == 0

        await eventually(lambda: self.server.homeserver.db.read(over), "the decision")
        self.assertEqual(smtp.messages, [])

    async def test_pauses_grow_while_nothing_is_read(self) -> None:
        smtp = await self.mail(pause="100ms", longest_pause="300ms", delay="10ms")

        async def pause() -> Any:
            rows = await self.server.homeserver.db.read(pushers.of_user, self.bob.user_id)
            return rows[0].mail_pause

        event_id = ""
        for number, expected in enumerate((100, 200, 300, 300), 1):
            event_id = await self.alice.send(self.room_id, f"m{number}")
            await smtp.received(number)
            self.assertEqual(await pause(), expected)
        await read(self.bob, self.room_id, event_id)
        await self.alice.send(self.room_id, "m5")
        await smtp.received(5)
        self.assertEqual(await pause(), 100)

    async def test_unsubscribing(self) -> None:
        smtp = await self.mail()
        await self.alice.send(self.room_id)
        await self.send_now(1)
        message = await smtp.received(1)
        self.assertEqual(message["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click")
        link = message["List-Unsubscribe"].strip("<>")
        self.assertTrue(link.startswith("https://hearth.test/_synapse/client/unsubscribe?"))
        self.assertIn(link, parts(message)[0])
        [token] = parse_qs(urlsplit(link).query)["token"]
        client = self.server.client
        for path in (
            "/_synapse/client/unsubscribe",
            "/_matrix/client/unstable/pushers/remove",
        ):
            status, page = await client.get(path, query={"token": token})
            self.assertEqual(status, 200)
            self.assertIn(b"<form", page)
            for bad in ("", "x", "1-x", "-", token + "x", f"{2**70}-x"):
                status, _ = await client.request(
                    "POST", path, query={"token": bad}, body=b"List-Unsubscribe=One-Click"
                )
                self.assertEqual(status, 200)
        self.assertEqual(len((await self.bob.ok("GET", "/pushers"))["pushers"]), 1)
        status, page = await client.request(
            "POST", path, query={"token": token}, body=b"List-Unsubscribe=One-Click"
        )
        self.assertEqual(status, 200)
        self.assertNotIn(b"<form", page)
        self.assertEqual((await self.bob.ok("GET", "/pushers"))["pushers"], [])
        status, page = await client.get(path, query={"token": token})
        self.assertNotIn(b"<form", page)

    async def test_hostile_names_and_texts(self) -> None:
        smtp = await self.mail()
        other = await self.alice.create_room(preset="public_chat", name=HOSTILE)
        await self.bob.join(other)
        path = f"/profile/{self.alice.user_id}/displayname"
        await self.alice.ok("PUT", path, {"displayname": HOSTILE})
        await self.alice.send(other, HOSTILE)
        await self.alice.send(other, {"msgtype": ["x"], "body": {"a": 1}})
        await self.send_now(2)
        message = await smtp.received(1)
        self.assertIsNone(message["Bcc"])
        self.assertEqual(smtp.receivers, [[ADDRESS]])
        self.assertNotIn("\n", message["Subject"])
        self.assertNotIn("\u202e", message["Subject"])
        text, html = parts(message)
        self.assertNotIn("<script", html)
        self.assertIn("{{ 7 * 7 }}", text)
        self.assertFalse([line for line in text.splitlines() if line.startswith("Bcc")])

    async def test_whose_address_it_is(self) -> None:
        await self.mail(pushed=False)
        for body, errcode in (
            (self.pusher(), "M_THREEPID_NOT_FOUND"),
            (self.pusher(pushkey="nonsense"), "M_INVALID_PARAM"),
            (self.pusher(pushkey="a@b\r\nBcc: c@d"), "M_INVALID_PARAM"),
        ):
            status, answer = await self.bob.call("POST", "/pushers/set", body)
            self.assertEqual((status, answer["errcode"]), (400, errcode))
        await self.own(self.bob)
        await self.bob.ok("POST", "/pushers/set", self.pusher(pushkey="BOB@Example.org"))
        [found] = (await self.bob.ok("GET", "/pushers"))["pushers"]
        self.assertEqual(found["pushkey"], ADDRESS)
        await self.bob.ok("POST", "/account/3pid/delete", {"medium": "email", "address": ADDRESS})
        self.assertEqual((await self.bob.ok("GET", "/pushers"))["pushers"], [])

    async def test_without_mail(self) -> None:
        await self.meet(pushed=False)
        await self.own(self.bob)
        status, answer = await self.bob.call("POST", "/pushers/set", self.pusher())
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_invites_and_mentions(self) -> None:
        smtp = await self.mail()
        other = await self.alice.create_room(name="Cellar")
        await self.alice.invite(other, self.bob.user_id)
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        await self.send_now(2)
        text, _ = parts(await smtp.received(1))
        self.assertIn("Cellar\n", text)
        self.assertIn("invited you\n", text)
        self.assertIn("Alice: hey\n", text)
