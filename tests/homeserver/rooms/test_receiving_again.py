"""Events that come again, late, or in another guise: redacted ones, outliers, states of others."""

from __future__ import annotations

from twisted.internet import reactor

from homeserver.core.event import Event
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.receive import BadState, KnownState, Receiver
from homeserver.rooms.remote_record import OutsideMember, OutsideRecords
from storage import memberships, rooms
from storage.events import ACCEPTED, MISPLACED, REJECTED, SOFT_FAILED
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import BOB, CAROL, RoomBuilder
from tests.support.rooms import ALICE, RoomServices

TOPIC = "m.room.topic"


def known(found: dict[tuple[str, str], Event]) -> KnownState:
    return KnownState({key: event.event_id for key, event in found.items()})


@on_each_database
class RedactedTest(ReceivingCase):
    async def test_an_outlier_stays_redacted_when_it_gets_its_place(self) -> None:
        """In the timeline, and in the history."""
        for version, live in (("11", True), ("12", False), ("1", False)):
            await self.enter(version)
            branch = self.room.fork()
            secret = branch.set_state(TOPIC, {"topic": "secret"}, REMOTE)
            await self.receiver.add_outliers(self.room.room_id, [secret])
            redaction = self.room.redaction(REMOTE, secret)
            self.assertEqual(await self.receive(redaction), [ACCEPTED])
            self.assertNotIn("secret", (await self.services.row(secret.event_id)).json)
            if live:
                self.assertEqual(await self.receive(secret), [ACCEPTED])
            else:
                judged = await self.receiver.add_history(self.room.room_id, [secret])
                self.assertEqual(judged[secret.event_id].status, ACCEPTED)
            row = await self.services.row(secret.event_id)
            self.assertNotIn("secret", row.json)
            self.assertEqual(row.redacted_by, redaction.event_id)
            self.assertIsNotNone(row.pos)
            self.db = await self.open()

    async def test_a_message_that_was_rejected_stays_redacted(self) -> None:
        await self.enter("11", power={"events_default": 0})
        old_member = self.room.state["m.room.member", BOB]
        ban = self.room.ban(REMOTE, BOB)
        relation = {"rel_type": "m.thread", "event_id": ban.event_id}
        wrong = self.room.event(
            "m.room.message",
            BOB,
            {"body": "secret", "url": "mxc://a/b", "m.relates_to": relation},
            state={**self.room.state, old_member.key: old_member},
        )
        redaction = self.room.redaction(REMOTE, wrong)
        statuses = await self.receive(ban, wrong, redaction)
        self.assertEqual(statuses, [ACCEPTED, MISPLACED, ACCEPTED])
        self.assertEqual(await self.receive(wrong), [MISPLACED])
        row = await self.services.row(wrong.event_id)
        self.assertNotIn("secret", row.json)
        self.assertEqual((row.rel_type, row.contains_url), (None, False))
        self.assertEqual(row.redacted_by, redaction.event_id)

    async def test_an_outlier_whose_redaction_came_first(self) -> None:
        """Also the names of a member."""
        await self.enter("11")
        name = self.room.fork().member(
            CAROL, "join", sender=CAROL, content={"membership": "join", "displayname": "secret"}
        )
        redaction = self.room.redaction(REMOTE, name)
        self.assertEqual(await self.receive(redaction), [ACCEPTED])
        await self.receiver.add_outliers(self.room.room_id, [name])
        row = await self.services.row(name.event_id)
        self.assertNotIn("secret", row.json)
        self.assertEqual(row.redacted_by, redaction.event_id)

    async def invite(self, user_id: str) -> None:
        template = EventTemplate("m.room.member", ALICE, {"membership": "invite"}, user_id)
        await self.services.append(self.room.room_id, [template])

    async def test_state_that_is_redacted_by_history(self) -> None:
        """Nothing of it is remembered."""
        await self.enter("11")
        name = self.room.set_state("m.room.name", {"name": "secret"}, REMOTE)
        await self.receive(name)
        await self.invite("@frank:hearth.test")
        redaction = self.room.fork().redaction(REMOTE, name)
        await self.receiver.add_history(self.room.room_id, [redaction])
        self.assertNotIn("secret", (await self.services.row(name.event_id)).json)
        guest = "@dora:hearth.test"
        await self.invite(guest)

        def read(txn: Transaction) -> str:
            nid = rooms.nid(txn, self.room.room_id)
            row = memberships.get(txn, nid or 0, guest)
            assert row is not None and row.stripped_state is not None
            return row.stripped_state

        self.assertNotIn("secret", await self.services.db.read(read))

    async def test_redactions_of_what_cannot_be(self) -> None:
        """They are like any event without effect, whatever they name."""
        await self.enter("11")
        long = "$" + "".join(chr(33 + number * number % 90) for number in range(20_000))
        for name in ("$\x00:a.example", long, "no ID"):
            redaction = self.room.redaction(REMOTE, name)
            self.assertEqual(await self.receive(redaction), [ACCEPTED])


@on_each_database
class ForeignStatesTest(ReceivingCase):
    async def test_a_rejected_event_hides_nobodys_head(self) -> None:
        """An event is at the head although a rejected one names it as its predecessor."""
        await self.enter(power={"events_default": 0})
        old_member = self.room.state["m.room.member", BOB]
        ban = self.room.ban(REMOTE, BOB)
        await self.receive(ban)
        topic = self.room.set_state(TOPIC, {"topic": "late"}, REMOTE)
        before = {**self.room.state, old_member.key: old_member}
        wrong = self.room.message(BOB, state=before, prev=[topic], add=False)
        states = {wrong.event_id: known(before | {old_member.key: ban})}
        del states[wrong.event_id].state[topic.key]  # type: ignore[attr-defined]
        self.assertEqual(await self.receive(wrong, states=states), [MISPLACED])
        self.assertEqual(await self.receive(topic), [ACCEPTED])
        self.assertEqual(await self.heads(), {topic.event_id})
        await self.assert_state()

    async def test_soft_failed_events_are_in_the_state_of_a_room_entered_again(self) -> None:
        """What this server would not show when it came may be in the room nevertheless."""
        await self.enter(version="11", users={BOB: 50, CAROL: 100})
        branch = self.room.fork()
        demotion = self.room.power_levels(users={REMOTE: 100, CAROL: 100})
        await self.receive(demotion)
        topic = branch.set_state(TOPIC, {"topic": "late"}, BOB)
        self.assertEqual(await self.receive(topic), [SOFT_FAILED])
        left = branch.leave(ALICE)
        await self.receive(left)
        state_before = list(branch.state.values())
        chain = [e for e in branch.events.values() if e.is_state and e not in state_before]
        join = branch.join(ALICE)
        judged = await self.receiver.adopt(join, branch.version, state_before, chain)
        self.assertEqual(judged.status, ACCEPTED)
        self.assertEqual((await self.state()).get(topic.key), topic.event_id)

    async def test_an_invite_from_outside_is_judged_when_the_room_is_entered(self) -> None:
        """Whoever sent it: it was not known then what the room allows."""
        for sender, judged_as in (("@mallory:c.example", REJECTED), (REMOTE, ACCEPTED)):
            services = RoomServices(self.db)
            receiver = Receiver(self.db, services.appender, reactor)
            room = RoomBuilder.started(
                "11",
                join_rule="invite",
                users={BOB: 50},
                room_id=f"!r{judged_as}:a.example",
            )
            invite = room.invite(sender, ALICE)
            await self.db.write(OutsideRecords().record, OutsideMember(invite), 1)
            state_before = list(room.state.values())
            join = room.join(ALICE)
            entering = receiver.adopt(join, room.version, state_before, list(room.events.values()))
            if judged_as == ACCEPTED:
                self.assertEqual((await entering).status, ACCEPTED)
            else:
                with self.assertRaises(BadState) as caught:
                    await entering
                self.assertIn(invite.event_id, str(caught.exception))
            row = await services.row(invite.event_id)
            self.assertEqual(row.status, ACCEPTED)
            judged = await receiver.add_outliers(
                room.room_id, [e for e in room.events.values() if e != join]
            )
            self.assertEqual(judged[invite.event_id].status, judged_as)

    async def test_given_states_are_no_resets(self) -> None:
        await self.enter()
        topic = self.room.set_state(TOPIC, {"topic": "missed"}, REMOTE)
        message = self.room.message(BOB)
        await self.receiver.add_outliers(self.room.room_id, [topic])
        states = {message.event_id: known(dict(self.room.state))}
        self.assertEqual(await self.receive(message, states=states), [ACCEPTED])
        self.assertEqual((await self.state())[topic.key], topic.event_id)
        self.assertEqual(self.resets, [])

    async def test_rejected_events_are_in_no_given_state(self) -> None:
        await self.enter()
        forged = self.room.set_state(TOPIC, {"topic": "x"}, BOB, add=False)
        judged = await self.receiver.add_outliers(self.room.room_id, [forged])
        self.assertEqual(judged[forged.event_id].status, REJECTED)
        missing = self.room.message(BOB)
        message = self.room.message(CAROL)
        del missing
        states = {message.event_id: known({**self.room.state, forged.key: forged})}
        self.assertEqual(await self.receive(message, states=states), [ACCEPTED])
        self.assertNotIn(forged.key, await self.state())

        def read(txn: Transaction) -> dict[tuple[str, str], str]:
            view = self.services.view(txn, self.room.room_id, ALICE)
            row_root = self.services_root
            return {key: e.event_id for key, e in view.state_at(row_root).items()}

        row = await self.services.row(message.event_id)
        assert row.state_before is not None
        self.services_root = row.state_before
        self.assertNotIn(forged.key, await self.services.db.read(read))


@on_each_database
class ManyHeadsTest(ReceivingCase):
    async def test_branches_are_brought_together(self) -> None:
        """However many branches others make, the room has few heads, and one state.

        Where a local user may say nothing, also."""
        for version, power in (("11", {}), ("1", {}), ("12", {"events_default": 50})):
            await self.enter(version, power=power)
            place, before = list(self.room.heads), dict(self.room.state)
            forks: list[Event] = []
            for number in range(90):
                content = {"membership": "join", "displayname": f"b{number}"}
                forks.append(
                    self.room.event(
                        "m.room.member", BOB, content, BOB, prev=place, state=before, add=False
                    )
                )
            for start in range(0, len(forks), 45):
                statuses = await self.receive(*forks[start : start + 45])
                self.assertEqual(set(statuses), {ACCEPTED})
            self.assertLessEqual(len(await self.heads()), 20)
            found = await self.state()
            self.assertIn(found["m.room.member", BOB], {event.event_id for event in forks})
            rows = await self.services.log(self.room.room_id)
            made = [row for row in rows if row.sender == ALICE and row.outgoing]
            self.assertEqual(len(made), 4)
            for row in made:
                event = await self.services.event(row.event_id)
                self.assertEqual(len(event.prev_event_ids), 20)
                self.assertEqual(row.status, ACCEPTED)
                self.assertEqual(row.type == "m.room.member", bool(power))
            said = await self.services.say(self.room.room_id) if not power else ""
            if said:
                self.assertEqual(await self.heads(), {said})
            self.db = await self.open()
