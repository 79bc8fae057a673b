"""Rooms with a policy server: what this server sends, and what it takes in."""

from __future__ import annotations

from typing import Any

from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.policy import KEY_ID, PolicyServer, is_recommended, policy_server
from homeserver.core.signing import SigningKey, sign_event
from storage.events import ACCEPTED, SOFT_FAILED, TransactionKey
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import BOB, CAROL, test_key
from tests.support.rooms import ALICE

POLICY_SERVER = "c.example"
KEY = test_key("policy")
SPAM = "spam"


def policy_content(key: SigningKey = KEY) -> dict[str, Any]:
    return {"via": POLICY_SERVER, "public_keys": {"ed25519": key.public_base64}}


class Policies:
    """A policy server that signs everything but spam."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_away = False

    async def signed(self, event: Event, server: PolicyServer) -> Event:
        self.asked.append(event.event_id)
        if self.is_away:
            raise MatrixError(502, "M_UNKNOWN", "It cannot be asked.")
        if event.content.get("body") == SPAM:
            raise MatrixError(400, "M_FORBIDDEN", "This is spam.")
        return signed(event)


def signed(event: Event, key: SigningKey = KEY) -> Event:
    """The event with a policy server's signature."""
    pdu = dict(event.pdu)
    pdu["signatures"] = {name: dict(keys) for name, keys in event.pdu["signatures"].items()}
    given = SigningKey("policy_server", key.key)
    sign_event(pdu, event.version, POLICY_SERVER, given)
    return Event(event.event_id, event.version, pdu)


@on_each_database
class PolicyTest(ReceivingCase):
    async def start(self, **options: Any) -> None:
        await self.enter(sign=True, **options)
        self.policies = Policies()
        self.services.appender.policies = self.policies
        self.services.appender.add_signed = self.receiver.add_signed
        appointed = self.room.set_state("m.room.policy", policy_content())
        self.assertEqual(await self.receive(appointed), [ACCEPTED])
        self.assertEqual(self.policies.asked, [])

    async def test_own_events_are_signed_first(self) -> None:
        """Shows ACL-6."""
        await self.start()
        key = TransactionKey("DEVICE", "send/m.room.message", "1")
        content = {"msgtype": "m.text", "body": "hello"}
        said = await self.services.send(self.room.room_id, ALICE, content, transaction=key)
        self.assertEqual(self.policies.asked, [said])
        event = await self.services.event(said)
        server = policy_server(policy_content())
        assert server is not None
        self.assertTrue(is_recommended(event, server))
        self.assertEqual(set(event.pdu["signatures"]), {"hearth.test", POLICY_SERVER})
        row = await self.services.row(said)
        self.assertEqual((row.outgoing, row.txn_id), (True, "1"))
        again = await self.services.send(self.room.room_id, ALICE, content, transaction=key)
        self.assertEqual(again, said)
        self.assertEqual(self.policies.asked, [said])

    async def test_refusals(self) -> None:
        """The client gets the policy server's error, and nothing is sent. Shows ACL-7."""
        await self.start()
        before = await self.services.room(self.room.room_id)
        with self.assertRaises(MatrixError) as caught:
            await self.services.say(self.room.room_id, body=SPAM)
        error = caught.exception
        self.assertEqual(
            (error.status, error.errcode, error.error), (400, "M_FORBIDDEN", "This is spam.")
        )
        self.assertEqual(await self.services.room(self.room.room_id), before)

    async def test_when_a_policy_server_is_in_force(self) -> None:
        """Shows ACL-5."""
        await self.start()
        await self.receive(signed(self.room.leave(CAROL)))
        self.policies.asked.clear()
        await self.services.say(self.room.room_id)
        self.assertEqual(self.policies.asked, [])
        for wrong in (
            {},
            {"via": 1},
            {"via": "c.example"},
            {"via": "c.example", "public_keys": []},
        ):
            self.assertIsNone(policy_server(wrong))
        self.assertIsNone(policy_server({**policy_content(), "via": "not a server"}))

    async def test_received_events_must_be_recommended(self) -> None:
        """Shows ACL-8."""
        await self.start()
        good = signed(self.room.message(BOB))
        asked = self.room.message(BOB)
        spam = self.room.message(BOB, SPAM)
        statuses = await self.receive(good, asked, spam)
        self.assertEqual(statuses, [ACCEPTED, ACCEPTED, SOFT_FAILED])
        self.assertEqual(set(self.policies.asked), {asked.event_id, spam.event_id})
        stored = await self.services.event(asked.event_id)
        self.assertIn(POLICY_SERVER, stored.pdu["signatures"])

    async def test_wrong_keys(self) -> None:
        """A signature by another key is none; the server's own signature stays.

        Shows ACL-8, ACL-9."""
        await self.start()
        mine = self.room.message(CAROL)
        wrong = signed(mine, test_key("another"))
        self.assertEqual(await self.receive(wrong), [ACCEPTED])
        self.assertEqual(self.policies.asked, [mine.event_id])
        stored = await self.services.event(mine.event_id)
        own = stored.pdu["signatures"][POLICY_SERVER]
        self.assertEqual(set(own), {KEY_ID, test_key(POLICY_SERVER).key_id})

    async def test_the_appointment_needs_no_signature(self) -> None:
        """But one with another state key does. Shows ACL-6."""
        await self.start()
        again = self.room.set_state("m.room.policy", policy_content(test_key("new")))
        other = self.room.set_state("m.room.policy", {}, state_key="x")
        self.assertEqual(await self.receive(again), [ACCEPTED])
        self.assertEqual(self.policies.asked, [])
        self.assertEqual(await self.receive(other), [SOFT_FAILED])
        self.assertEqual(self.policies.asked, [other.event_id])
        self.assertEqual(REMOTE, again.sender)

    async def test_a_server_that_is_away_holds_up_little(self) -> None:
        """It is not waited for with each event of many. Shows ACL-8."""
        await self.start()
        self.policies.is_away = True
        events = [self.room.message(BOB, f"{number}") for number in range(40)]
        self.assertEqual(set(await self.receive(*events)), {SOFT_FAILED})
        self.assertLessEqual(len(self.policies.asked), 10)
