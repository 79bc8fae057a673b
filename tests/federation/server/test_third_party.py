"""Invites to addresses become invites to users."""

from __future__ import annotations

from typing import Any

from homeserver.core.signing import SigningKey, generate_signing_key, sign_json
from homeserver.core.types import JsonObject
from tests.federation.server.scene import Scene

IDENTITY = "identity.example"
KEY = generate_signing_key("0", b"\2" * 32)
OTHER_KEY = generate_signing_key("0", b"\3" * 32)


def signed(user_id: str, token: str = "tok", key: SigningKey = KEY) -> JsonObject:
    """What an identity server says of a binding."""
    return sign_json({"mxid": user_id, "token": token}, IDENTITY, key)


class ThirdPartyScene(Scene):
    async def invited_by_address(self) -> str:
        """A room with a third-party invite of alice's."""
        await self.begin()
        room_id = await self.room(preset="private_chat")
        content = {
            "display_name": "m...@e...",
            "key_validity_url": f"https://{IDENTITY}/isvalid",
            "public_key": KEY.public_base64,
            "public_keys": [{"public_key": KEY.public_base64}],
        }
        await self.alice.set_state(room_id, "m.room.third_party_invite", content, "tok")
        return room_id

    async def exchange(self, room_id: str, signed: Any, /, **changes: Any) -> tuple[int, Any]:
        body = {
            "type": "m.room.member",
            "room_id": room_id,
            "sender": self.alice.user_id,
            "state_key": self.mallory,
            "content": {
                "membership": "invite",
                "third_party_invite": {"display_name": "x", "signed": signed},
            },
            **changes,
        }
        path = "/v1/exchange_third_party_invite/{}"
        return await self.peer.put(self.hearth.name, path, room_id, body=body)

    async def bind(
        self, room_id: str, sender: str, signed: Any, user_id: str | None = None
    ) -> tuple[int, Any]:
        user_id = user_id or self.alice.user_id
        bound = {"medium": "email", "address": "a@example.com", "mxid": user_id}
        invite = {**bound, "room_id": room_id, "sender": sender, "signed": signed}
        return await self.hearth.client.put(
            "/_matrix/federation/v1/3pid/onbind", {**bound, "invites": [invite]}
        )


class ExchangeTest(ThirdPartyScene):
    async def test_a_real_invite_is_sent(self) -> None:
        """Shows FJ-19."""
        room_id = await self.invited_by_address()
        self.assertEqual(await self.exchange(room_id, signed(self.mallory)), (200, {}))
        self.assertEqual(await self.membership(room_id), "invite")
        (request,) = self.peer.received("invite")
        event = request.body["event"]
        self.assertEqual(event["sender"], self.alice.user_id)
        invite = event["content"]["third_party_invite"]
        self.assertEqual(invite["display_name"], "m...@e...")
        self.assertEqual(invite["signed"], signed(self.mallory))

    async def test_what_the_identity_server_did_not_say(self) -> None:
        """Shows FJ-19."""
        room_id = await self.invited_by_address()
        forged = signed(self.mallory, key=OTHER_KEY)
        self.refused(await self.exchange(room_id, forged), 403, "M_FORBIDDEN")
        unknown = signed(self.mallory, token="other")
        self.refused(await self.exchange(room_id, unknown), 403, "M_FORBIDDEN")
        good = signed(self.mallory)
        wrong: list[Any] = [
            signed(self.peer.user("else")),
            {**good, "token": 1},
            {**good, "mxid": None},
            None,
            [],
        ]
        for rubbish in wrong:
            self.refused(await self.exchange(room_id, rubbish), 400, "M_INVALID_PARAM")
        self.refused(await self.exchange(room_id, {**good, "x": 1}), 403, "M_FORBIDDEN")
        self.assertIsNone(await self.membership(room_id))

    async def test_what_is_no_invite_of_a_user_of_the_origin(self) -> None:
        """Shows FJ-19."""
        room_id = await self.invited_by_address()
        good = signed(self.mallory)
        wrong: list[dict[str, Any]] = [
            {"type": "m.room.message"},
            {"room_id": "!other:example.com"},
            {"sender": self.mallory},
            {"sender": None},
            {"state_key": self.alice.user_id},
            {"content": {"membership": "join"}},
            {"content": {"membership": "invite"}},
            {"content": {"membership": "invite", "third_party_invite": []}},
            {"content": 1},
        ]
        for changes in wrong:
            answer = await self.exchange(room_id, good, **changes)
            self.refused(answer, 400, "M_INVALID_PARAM")
        bob = f"@bob:{self.hearth.name}"
        self.refused(await self.exchange(room_id, good, sender=bob), 403, "M_FORBIDDEN")
        answer = await self.exchange("!no:where.example", good)
        self.refused(answer, 404, "M_NOT_FOUND")
        self.assertIsNone(await self.membership(room_id))


class BoundTest(ThirdPartyScene):
    async def test_the_inviters_server_is_asked(self) -> None:
        """Shows FJ-19."""
        await self.begin()
        self.peer.on["exchange"] = lambda request: {}
        room_id = "!theirs:example.com"
        answer = await self.bind(room_id, self.mallory, signed(self.alice.user_id))
        self.assertEqual(answer, (200, {}))
        (request,) = self.peer.received("exchange")
        body = request.body
        self.assertEqual(body["state_key"], self.alice.user_id)
        self.assertEqual(body["sender"], self.mallory)
        self.assertEqual(body["room_id"], room_id)
        given = body["content"]["third_party_invite"]["signed"]
        self.assertEqual(given, signed(self.alice.user_id))

    async def test_an_inviter_of_this_server(self) -> None:
        """Shows FJ-19."""
        room_id = await self.invited_by_address()
        bob = await self.hearth.register("bob")
        said = signed(bob.user_id)
        answer = await self.bind(room_id, self.alice.user_id, said, bob.user_id)
        self.assertEqual(answer, (200, {}))
        self.assertEqual(await self.membership(room_id, bob.user_id), "invite")
        await bob.join(room_id)

    async def test_what_the_identity_server_did_not_say(self) -> None:
        """Shows FJ-19."""
        room_id = await self.invited_by_address()
        bob = await self.hearth.register("bob")
        forged = signed(bob.user_id, key=OTHER_KEY)
        answer = await self.bind(room_id, self.alice.user_id, forged, bob.user_id)
        self.refused(answer, 403, "M_FORBIDDEN")
        answer = await self.bind(room_id, self.alice.user_id, signed(self.mallory), bob.user_id)
        self.refused(answer, 400, "M_INVALID_PARAM")
        nobody = f"@nobody:{self.hearth.name}"
        answer = await self.bind(room_id, self.alice.user_id, signed(nobody), nobody)
        self.refused(answer, 404, "M_NOT_FOUND")
        self.assertIsNone(await self.membership(room_id, bob.user_id))

    async def test_a_server_that_cannot_be_asked(self) -> None:
        """Shows FJ-19."""
        await self.begin()
        await self.peer.close()
        answer = await self.bind("!t:e.com", self.mallory, signed(self.alice.user_id))
        self.refused(answer, 502, "M_UNKNOWN")
