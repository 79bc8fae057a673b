"""The ledger of the chaos script: what is owed to whom, and what it finds wrong."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from tests.chaos.ledger import Copy, Ledger

ROOM = "!room"
ALICE, BOB, CAROL = "@alice:near/A", "@bob:far/B", "@carol:far/C"


class LedgerCase(TestCase):
    def setUp(self) -> None:
        self.ledger = Ledger()
        self.now = 0.0

    def take(self, kind: str, device: str, life: str = "1", **what: Any) -> None:
        self.now += 1
        self.ledger.take({"report": kind, "device": device, "life": life, **what}, self.now)

    def share(self, name: str, target: str, session: str = "s", acked: bool = True) -> None:
        """Alice sends a session to a device."""
        user, _, device = target.rpartition("/")
        self.take("sharing", ALICE, room=ROOM, session=session, to=[(user, device, name)])
        if acked:
            self.take("shared", ALICE, shares=[name])

    def say(self, txn: str, event: str | None = None, **what: Any) -> None:
        """Alice says something, named by its transaction."""
        told = {"room": ROOM, "session": "s", "index": 0, "withheld": [], "asking": [], **what}
        self.take("said", ALICE, txn=txn, body=txn, **told)
        if event is not None:
            self.take("acked", ALICE, txn=txn, event=event)

    def kinds(self) -> set[str]:
        return set(self.ledger.problems)


class OwedTest(LedgerCase):
    """Which devices must be able to read a message."""

    def test_a_message_is_owed_to_devices_that_were_sent_its_session(self) -> None:
        self.share("one", BOB)
        self.share("two", CAROL, acked=False)
        self.say("hello", "$1")
        copies = [Copy("$1", "s", "hello")]
        secret = [Copy("$1", "s", None)]
        figures = self.ledger.audit(ROOM, {ALICE: copies, BOB: copies, CAROL: secret})
        self.assertEqual(figures["owed"], 2)
        self.assertEqual(figures["decrypted"], 2)
        self.assertEqual(self.kinds(), set())

    def test_what_comes_too_late_is_not_owed(self) -> None:
        self.say("hello", "$1")
        self.share("one", BOB)
        self.assertEqual(self.ledger.messages["hello"].targets, {ALICE})

    def test_an_owed_message_that_cannot_be_read(self) -> None:
        self.share("one", BOB)
        self.say("hello", "$1", index=4)
        figures = self.ledger.audit(ROOM, {BOB: [Copy("$1", "s", None)]})
        self.assertEqual(figures["undecryptable"], 1)
        (text,) = self.ledger.problems["unable to decrypt"]
        self.assertEqual(
            text,
            f"$1, 'hello' of {ALICE} in {ROOM}, session s at 4, by {BOB}: "
            "the key was sent and did not come",
        )
        self.take("got", BOB, share="one", ok=True)
        self.ledger.audit(ROOM, {BOB: [Copy("$1", "s", None)]})
        self.assertIn("cannot be used", self.ledger.problems["unable to decrypt"][-1])

    def test_settled_devices_are_known_to_each_other(self) -> None:
        self.ledger.settle(ROOM, [ALICE, BOB, CAROL])
        self.share("one", BOB)
        self.say("hello", withheld=[CAROL])
        (text,) = self.ledger.problems["a settled device was not sent the session"]
        self.assertIn(f"lacks {CAROL}: its key was withheld", text)

    def test_who_is_no_longer_settled_may_be_left_out(self) -> None:
        self.ledger.settle(ROOM, [ALICE, BOB, CAROL])
        self.ledger.release(CAROL)
        self.ledger.release(BOB, ROOM)
        self.say("hello")
        self.assertEqual(self.kinds(), set())

    def test_a_sender_who_is_new_may_leave_others_out(self) -> None:
        self.ledger.settle(ROOM, [BOB, CAROL])
        self.say("hello")
        self.assertEqual(self.kinds(), set())


class WaitingTest(LedgerCase):
    """What has still to happen at a quiet point."""

    def test_messages_wait_until_all_have_read_them(self) -> None:
        self.share("one", BOB)
        self.take("seen", BOB, event="$1", body="hello")
        self.say("hello", "$1")
        self.assertEqual([each.waiting for each in self.ledger.unread()], [{ALICE}])
        self.take("seen", ALICE, event="$1", body="hello")
        self.assertEqual(self.ledger.unread(), [])

    def test_nobody_waits_for_those_who_left(self) -> None:
        self.share("one", BOB)
        self.share("two", CAROL)
        self.say("hello", "$1")
        self.take("seen", ALICE, event="$1", body="hello")
        self.ledger.release(BOB)
        self.ledger.release(CAROL, ROOM)
        self.assertEqual(self.ledger.unread(), [])
        # Nor if they left before the message was acknowledged.
        self.say("again", "$2")
        self.take("seen", ALICE, event="$2", body="again")
        self.assertEqual(self.ledger.unread(), [])
        self.ledger.enter(CAROL, ROOM)
        self.say("once more", "$3")
        self.take("seen", ALICE, event="$3", body="once more")
        self.assertEqual([each.waiting for each in self.ledger.unread()], [{CAROL}])

    def test_keys_wait_until_they_came(self) -> None:
        self.share("one", BOB)
        self.share("two", CAROL, acked=False)
        self.assertEqual([each.device for each in self.ledger.unsent()], [BOB])
        self.take("got", BOB, share="one", ok=True)
        self.assertEqual(self.ledger.unsent(), [])


class KeysTest(LedgerCase):
    """Keys on their way between devices."""

    def test_a_one_time_key_for_two(self) -> None:
        what = {"user": "@bob:far", "device_id": "B"}
        self.take("otk", ALICE, key="signed_curve25519:AAA", value="x", **what)
        self.take("otk", CAROL, key="signed_curve25519:AAB", value="y", **what)
        self.take("otk", CAROL, key="signed_curve25519:AAA", value="z", user="@a:b", device_id="B")
        self.assertEqual(self.kinds(), set())
        self.take("otk", CAROL, key="signed_curve25519:AAC", value="y", **what)
        self.take("otk", CAROL, key="signed_curve25519:AAA", value="w", **what)
        self.assertEqual(len(self.ledger.problems["a one-time key was handed out twice"]), 2)
        self.assertEqual(self.ledger.finish([])["one-time keys claimed"], 4)

    def test_keys_that_are_lost_or_come_twice(self) -> None:
        self.share("one", BOB)
        self.share("two", CAROL)
        self.take("got", CAROL, share="two", ok=True)
        # It did not say that it had it before it was started again.
        self.take("got", CAROL, life="2", share="two", ok=False)
        self.assertEqual(self.kinds(), set())
        figures = self.ledger.finish([ALICE, CAROL])
        self.assertEqual((figures["keys sent"], figures["keys received"]), (2, 1))
        self.assertEqual(self.kinds(), set())
        self.ledger.finish([BOB])
        self.take("got", CAROL, life="2", share="two", ok=True)
        self.assertEqual(self.kinds(), {"a key was lost", "a key came twice"})

    def test_keys_for_others_and_keys_that_cannot_be_read(self) -> None:
        self.share("one", BOB)
        self.take("got", CAROL, share="one", ok=True)
        self.take("got", BOB, share="one", ok=False)
        self.assertEqual(
            self.kinds(), {"a key came to the wrong device", "a key could not be read"}
        )


class HistoryTest(LedgerCase):
    """What devices find in a room in the end."""

    def look(self, *events: str, body: str | None = None) -> set[str]:
        """What is wrong with a history of these events."""
        self.ledger.problems.clear()
        history = [Copy(event, "s", body) for event in events]
        self.ledger.audit(ROOM, {CAROL: history})
        return self.kinds()

    def test_events_are_there_once_and_in_order(self) -> None:
        self.say("one", "$1")
        self.say("two", "$2")
        self.assertEqual(self.look("$1", "$2"), set())
        self.assertEqual(self.look("$1"), {"a message is missing"})
        self.assertEqual(self.look("$1", "$2", "$2"), {"an event is there twice"})
        self.assertEqual(self.look("$1", "$2", "$3"), {"an event that nobody sent"})
        self.assertEqual(self.look("$2", "$1"), {"messages are out of order"})

    def test_what_was_said_by_who_was_given_up(self) -> None:
        self.say("one")
        self.assertEqual(self.look("$1"), {"an event that nobody sent"})
        self.ledger.release(ALICE)
        self.assertEqual(self.look("$1"), set())
        self.assertEqual(self.look("$1", body="one"), set())
        self.assertEqual(self.look("$1", body="two"), {"an event that nobody sent"})

    def test_texts_are_those_that_were_sent(self) -> None:
        self.share("one", CAROL)
        self.say("one", "$1")
        self.assertEqual(self.look("$1", body="one"), set())
        self.assertEqual(self.look("$1", body="two"), {"a message was read as another one"})

    def test_a_message_is_one_event(self) -> None:
        self.say("one", "$1")
        self.take("acked", ALICE, txn="one", event="$1")
        self.assertEqual(self.kinds(), set())
        self.take("acked", ALICE, txn="one", event="$2")
        self.assertEqual(self.kinds(), {"a message became two events"})

    def test_what_was_never_acknowledged(self) -> None:
        self.say("one")
        self.ledger.finish([BOB])
        self.assertEqual(self.kinds(), set())
        self.ledger.finish([ALICE])
        self.assertEqual(self.kinds(), {"a message was never acknowledged"})

    def test_refusals(self) -> None:
        self.say("one")
        self.take("refused", ALICE, txn="one", why="403 {'errcode': 'M_FORBIDDEN'}")
        self.ledger.finish([ALICE])
        self.assertEqual(self.kinds(), set())
        self.say("two")
        self.take("refused", ALICE, txn="two", why="400 {'errcode': 'M_BAD_JSON'}")
        self.assertEqual(self.kinds(), {"a message was refused"})

    def test_problems_are_told_by_kind(self) -> None:
        for number in range(20):
            self.take("trouble", BOB, what=f"trouble {number}")
        lines = self.ledger.told()
        self.assertEqual(lines[0], "a client met something strange (20):")
        self.assertEqual(len(lines), 9)
