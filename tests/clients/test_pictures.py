"""Pictures between matrix-js-sdk clients on two servers, and a push gateway that hears of them."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from pathlib import Path

from PIL import Image

from scripts.run_tests import JS_CLIENT
from tests.clients.scripted import PASSWORD, PATIENCE, Cast, ClientCase, required
from tests.clients.test_servers import federated
from tests.support.federated_process import FederatedProcess
from tests.support.push_gateway import PushGateway
from tests.support.web import WebServer


def picture(width: int, height: int) -> str:
    """A PNG, as base64."""
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


class PicturesTest(ClientCase):
    async def test_an_encrypted_picture_over_two_servers(self) -> None:
        """Shows MED-4, PSH-11."""
        required(JS_CLIENT)
        directory = Path(self.mktemp()).resolve()
        near, far = federated(directory / "near"), federated(directory / "far")
        gateway = PushGateway(self)
        for server in (near, far):
            server.options["outgoing_http"] = WebServer.trust()
        await self.on_servers([near, far], lambda cast: self._pictures(near, far, gateway, cast))

    async def _pictures(
        self, near: FederatedProcess, far: FederatedProcess, gateway: PushGateway, cast: Cast
    ) -> None:
        alice, bob = await cast.js(near), await cast.js(far)
        await alice.do("login", user="alice", password=PASSWORD, device="A")
        await bob.do("login", user="bob", password=PASSWORD, device="B")
        bob_id = f"@bob:{far.name}"
        face = picture(200, 100)
        await alice.do("set_avatar", picture=face)
        self.assertEqual(await bob.do("set_pusher", url=gateway.url, pushkey="phone"), 1)
        room = await alice.do("create_encrypted", name="Pictures", invite=[bob_id])
        await bob.do("join_invited", room=room)
        await alice.do("wait_member", room=room, user=bob_id)
        sent = picture(400, 300)
        cat = await alice.do("send_picture", room=room, body="cat.png", picture=sent)
        self.assertTrue(cat["uri"].startswith(f"mxc://{near.name}/"), cat)
        self.assertEqual(await bob.do("wait_picture", room=room, body="cat.png"), sent)
        seen = await bob.do("wait_avatar", room=room, user=f"@alice:{near.name}")
        self.assertIn(seen["type"], ("image/png", "image/webp", "image/jpeg"))
        with Image.open(io.BytesIO(base64.b64decode(seen["picture"]))) as small:
            self.assertEqual(small.size, (32, 32))
        back = picture(30, 30)
        await bob.do("send_picture", room=room, body="dog.png", picture=back)
        self.assertEqual(await alice.do("wait_picture", room=room, body="dog.png"), back)
        await self._check_pushes(gateway, room, cat["event_id"])

    async def _check_pushes(self, gateway: PushGateway, room: str, event_id: str) -> None:
        """Bob's phone heard of Alice's picture, and learnt nothing but that there is something."""
        deadline = time.monotonic() + PATIENCE
        while event_id not in gateway.events("phone"):
            self.assertLess(time.monotonic(), deadline, gateway.told)
            await asyncio.sleep(0.05)
        for told in gateway.of("phone"):
            self.assertFalse({"content", "sender", "sender_display_name", "room_name"} & set(told))
            self.assertIn(told.get("room_id"), (room, None))
