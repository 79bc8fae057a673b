"""Pushes to browsers."""

from __future__ import annotations

from typing import Any

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import TestCase

from homeserver.core.pushers import decoded
from homeserver.push.web_push import encrypted, is_public_key
from storage import vapid_keys
from tests.homeserver.push.test_delivery import PushTestCase
from tests.homeserver.rooms.test_unread import mention
from tests.support.network import eventually
from tests.support.server import make_server
from tests.support.web_push import Browser


def base64(text: str) -> bytes:
    found = decoded(text)
    assert found is not None
    return found


class EncryptionTest(TestCase):
    def test_example_of_the_rfc(self) -> None:
        """RFC 8291, section 5 and appendix A."""
        salt = base64("DGv6ra1nlYgDCS1FRnbzlw")
        self.patch(http_ece.os, "urandom", lambda size: salt[:size])
        secret = int.from_bytes(base64("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big")
        sealed = encrypted(
            b"When I grow up, I want to be a watermelon",
            base64(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
            ),
            base64("BTBZMqHH6r4Tts7J_aSIgg"),
            sender=ec.derive_private_key(secret, ec.SECP256R1()),
        )
        self.assertEqual(
            sealed,
            base64(
                "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAm"
                "S6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_"
                "Qulcy4a-fN"
            ),
        )

    def test_keys(self) -> None:
        good = ec.generate_private_key(ec.SECP256R1()).public_key()
        numbers = good.public_numbers()
        point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        self.assertTrue(is_public_key(point))
        self.assertFalse(is_public_key(point[:-1] + bytes([point[-1] ^ 1])))
        self.assertFalse(is_public_key(b"\x04" + b"\x00" * 64))
        self.assertFalse(is_public_key(b""))


class WebPushTest(PushTestCase):
    async def meet_browser(self, **options: Any) -> Browser:
        await self.meet(pushed=False, **options)
        browser = Browser(self)
        await browser.activate(self.bob)
        return browser

    async def test_told(self) -> None:
        browser = await self.meet_browser()
        event_id = await self.alice.send(self.room_id, "hello 🌊")
        [told] = await browser.told(1)
        self.assertEqual((told["event_id"], told["room_name"]), (event_id, "Lounge"))
        self.assertEqual(told["content"]["body"], "hello 🌊")
        self.assertEqual(told["counts"], {"unread": 1})
        self.assertEqual(told["devices"][0]["data"], {})
        self.assertEqual(browser.headers[-1]["urgency"], "normal")
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        await browser.told(2)
        self.assertEqual(browser.headers[-1]["urgency"], "high")
        # The token is shown again, so that push services check it once.
        self.assertEqual(len({each["authorization"] for each in browser.headers}), 1)
        capabilities = await self.bob.ok("GET", "/capabilities")
        offered = capabilities["capabilities"]["m.webpush"]
        self.assertEqual(offered, {"enabled": True, "vapid": browser.keys.pop()})
        status, answer = await self.server.client.get("/_hearth/client/v1/web_push")
        self.assertEqual((status, answer), (200, offered))

    async def test_what_is_too_large_is_fetched_by_the_client(self) -> None:
        browser = await self.meet_browser()
        event_id = await self.alice.send(self.room_id, "x" * 5000)
        [told] = await browser.told(1)
        self.assertEqual(told.keys(), {"event_id", "room_id", "prio", "counts", "devices"})
        self.assertEqual(told["event_id"], event_id)

    async def test_nothing_before_it_is_activated(self) -> None:
        await self.meet(pushed=False)
        browser = Browser(self)
        status, _ = await self.bob.call("POST", "/pushers/set", browser.pusher())
        self.assertEqual(status, 201)
        [token] = await browser.told(1)
        [shown] = (await self.bob.ok("GET", "/pushers"))["pushers"]
        self.assertEqual((shown["kind"], shown["activated"]), ("webpush", False))
        await self.alice.send(self.room_id)
        for body, status, errcode in (
            ({**token, "app_id": "other"}, 404, "M_NOT_FOUND"),
            ({**token, "ack_token": "x"}, 400, "M_UNKNOWN_ACTIVATION_TOKEN"),
            ({"app_id": token["app_id"]}, 400, "M_MISSING_PARAM"),
        ):
            found, answer = await self.bob.call("POST", "/pushers/ack", body)
            self.assertEqual((found, answer["errcode"]), (status, errcode))
        self.assertEqual((await self.alice.call("POST", "/pushers/ack", token))[0], 404)
        await self.bob.ok("POST", "/pushers/ack", token)
        [shown] = (await self.bob.ok("GET", "/pushers"))["pushers"]
        self.assertTrue(shown["activated"])
        # Set again, it stays active; reached in another way, it does not.
        self.assertEqual((await self.bob.call("POST", "/pushers/set", browser.pusher()))[0], 200)
        other = Browser(self)
        data = other.pusher()["data"]
        moved = browser.pusher(data=data)
        self.assertEqual((await self.bob.call("POST", "/pushers/set", moved))[0], 201)

    async def test_an_old_token(self) -> None:
        await self.meet(pushed=False)
        browser = Browser(self)
        await self.bob.call("POST", "/pushers/set", browser.pusher())
        [token] = await browser.told(1)

        def age(txn: Any) -> None:
            txn.execute("UPDATE pushers SET ack_expires_ts = 1")

        await self.server.homeserver.db.write(age)
        status, answer = await self.bob.call("POST", "/pushers/ack", token)
        self.assertEqual((status, answer["errcode"]), (400, "M_EXPIRED_ACTIVATION_TOKEN"))
        await self.bob.call("POST", "/pushers/set", browser.pusher())
        await self.bob.ok("POST", "/pushers/ack", (await browser.told(2))[-1])

    async def test_gone(self) -> None:
        for status in (404, 410, 403):
            browser = await self.meet_browser()
            browser.answers = [status]
            await self.alice.send(self.room_id)

            async def gone() -> bool:
                return not (await self.bob.ok("GET", "/pushers"))["pushers"]

            await eventually(gone, "the pusher is gone")

    async def test_a_service_that_does_not_believe_who_this_is(self) -> None:
        """Subscriptions outlive a wrong clock or contact of this server."""
        browser = await self.meet_browser()
        browser.answers = [(403, {"reason": "BadJwtToken"}, {}), (403, b"invalid JWT provided", {})]
        event_id = await self.alice.send(self.room_id)
        [told] = await browser.told(1)
        self.assertEqual((told["event_id"], browser.answers), (event_id, []))

    async def test_failures(self) -> None:
        browser = await self.meet_browser()
        browser.answers = [500, (429, {}, {"Retry-After": "1"}), 413]
        await self.alice.send(self.room_id, "refused")
        event_id = await self.alice.send(self.room_id, "second")
        [told] = await browser.told(1)
        self.assertEqual((told["event_id"], browser.answers), (event_id, []))

    async def test_one_key_for_all_processes(self) -> None:
        server = await make_server(self)
        alice = await server.register()
        first = (await alice.ok("GET", "/capabilities"))["capabilities"]["m.webpush"]
        stored = await server.homeserver.db.read(vapid_keys.get)
        again = await server.homeserver.db.write(vapid_keys.get_or_make, lambda: "another")
        self.assertEqual(again, stored)
        await server.restart()
        second = (await alice.ok("GET", "/capabilities"))["capabilities"]["m.webpush"]
        self.assertEqual(second, first)

    async def test_keys_that_are_none(self) -> None:
        await self.meet(pushed=False)
        browser = Browser(self)
        off = browser.pusher()["pushkey"][:-4] + "AAAA"
        status, answer = await self.bob.call("POST", "/pushers/set", browser.pusher(pushkey=off))
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
