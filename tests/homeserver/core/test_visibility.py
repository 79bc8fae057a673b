"""History visibility: who may see which event."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.visibility import (
    FOREVER,
    EventFacts,
    HistoryVisibility,
    Reader,
    Verdict,
    allows,
    is_world_readable,
    may_see,
    membership_of,
    server_verdict,
    verdict,
    visibility_of,
)

WORLD, SHARED = HistoryVisibility.WORLD_READABLE, HistoryVisibility.SHARED
INVITED, JOINED = HistoryVisibility.INVITED, HistoryVisibility.JOINED
ME = "@me:example.org"
JUNK: list[Any] = [None, True, 0, "", "x", [], {}, {"history_visibility": None}]
NEVER = Reader()
AT = 50  # the position of the event that is asked about


def message(
    visibility: HistoryVisibility, membership: str | None, *, erased_at: int | None = None
) -> EventFacts:
    return EventFacts.of(
        "m.room.message",
        None,
        {"body": "hello"},
        position=AT,
        visibility_before=visibility,
        membership_before=membership,
        reader_id=ME,
        erased_at=erased_at,
    )


def sees(facts: EventFacts, reader: Reader) -> bool:
    return verdict(facts, reader) is not Verdict.HIDDEN


class SixteenCasesTests(SynchronousTestCase):
    # the reader's membership at the event, and what became of them later
    READERS: dict[str, tuple[str | None, Reader]] = {
        "never a member": (None, NEVER),
        "invited then, not joined since": ("invite", NEVER),
        "invited then, joined later": ("invite", Reader(60, FOREVER)),
        "joined later": (None, Reader(60, FOREVER)),
        "joined later and left again": (None, Reader(60, 70)),
        "in the room, left later": ("join", Reader(40, 60)),
        "had left": ("leave", Reader(10, 40)),
        "had left, rejoined later": ("leave", Reader(60, FOREVER)),
        "was banned, rejoined later": ("ban", Reader(60, FOREVER)),
        "had knocked": ("knock", NEVER),
    }
    ALLOWED: dict[str, set[HistoryVisibility]] = {
        "never a member": {WORLD},
        "invited then, not joined since": {WORLD, INVITED},
        "invited then, joined later": {WORLD, SHARED, INVITED},
        "joined later": {WORLD, SHARED},
        "joined later and left again": {WORLD, SHARED},
        "in the room, left later": {WORLD, SHARED, INVITED, JOINED},
        "had left": {WORLD},
        "had left, rejoined later": {WORLD, SHARED},
        "was banned, rejoined later": {WORLD, SHARED},
        "had knocked": {WORLD},
    }

    def test_every_visibility_for_every_reader(self) -> None:
        """Shows HV-3."""
        for name, (membership, reader) in self.READERS.items():
            for visibility in HistoryVisibility:
                self.assertEqual(
                    sees(message(visibility, membership), reader),
                    visibility in self.ALLOWED[name],
                    f"{visibility}: {name}",
                )

    def test_left_users_see_nothing_sent_after(self) -> None:
        """Shows HV-3."""
        left_before, left_after = Reader(10, AT), Reader(10, AT + 1)
        self.assertFalse(sees(message(SHARED, "leave"), left_before))
        self.assertTrue(sees(message(SHARED, "leave"), left_after))

    def test_fetched_history_is_before_every_stay(self) -> None:
        facts = message(SHARED, None)._replace(position=-3)
        self.assertTrue(sees(facts, Reader(40, 60)))
        self.assertFalse(sees(facts, NEVER))

    def test_values_at_the_event_decide_not_current_ones(self) -> None:
        """Shows HV-1."""
        # in the room today, and it is world-readable today: neither is asked
        self.assertFalse(sees(message(JOINED, None), Reader(60, FOREVER)))
        # left since, and the room has been closed since
        self.assertTrue(sees(message(JOINED, "join"), Reader(10, 60)))


class ValueTests(SynchronousTestCase):
    def test_absent_or_unknown_is_shared(self) -> None:
        """Shows HV-2."""
        for content in [
            *JUNK,
            {"history_visibility": "public"},
            {"history_visibility": ["joined"]},
        ]:
            self.assertIs(visibility_of(content), SHARED, content)
        for value in HistoryVisibility:
            self.assertIs(visibility_of({"history_visibility": str(value)}), value)

    def test_world_readable_now(self) -> None:
        """Shows HV-6."""
        self.assertTrue(is_world_readable({"history_visibility": "world_readable"}))
        for content in [*JUNK, {"history_visibility": "shared"}]:
            self.assertFalse(is_world_readable(content))
        self.assertTrue(sees(message(WORLD, None), NEVER))

    def test_membership(self) -> None:
        self.assertEqual(membership_of({"membership": "join"}), "join")
        for content in [*JUNK, {"membership": 1}]:
            self.assertIsNone(membership_of(content))


class BoundaryTests(SynchronousTestCase):
    def visibility_change(
        self, before: HistoryVisibility, after: str, membership: str | None = None
    ) -> EventFacts:
        return EventFacts.of(
            "m.room.history_visibility",
            "",
            {"history_visibility": after},
            position=AT,
            visibility_before=before,
            membership_before=membership,
            reader_id=ME,
        )

    def own_member_event(
        self, visibility: HistoryVisibility, before: str | None, after: str
    ) -> EventFacts:
        return EventFacts.of(
            "m.room.member",
            ME,
            {"membership": after},
            position=AT,
            visibility_before=visibility,
            membership_before=before,
            reader_id=ME,
        )

    def test_visibility_changes_take_the_laxer_side(self) -> None:
        """Shows HV-4."""
        for before, after in itertools.product(HistoryVisibility, repeat=2):
            for membership, reader in (
                (None, NEVER),
                (None, Reader(60, FOREVER)),
                ("invite", Reader(60, FOREVER)),
                ("join", Reader(40, FOREVER)),
            ):
                expected = any(
                    allows(side, membership, reader.joined_after(AT)) for side in (before, after)
                )
                facts = self.visibility_change(before, after, membership)
                self.assertEqual(sees(facts, reader), expected, (before, after, membership))
        self.assertTrue(sees(self.visibility_change(WORLD, "joined"), NEVER))
        self.assertTrue(sees(self.visibility_change(JOINED, "world_readable"), NEVER))
        self.assertFalse(sees(self.visibility_change(JOINED, "invited"), NEVER))

    def test_a_visibility_event_must_be_the_state_event(self) -> None:
        """Shows HV-4."""
        for state_key in (None, "x"):
            facts = EventFacts.of(
                "m.room.history_visibility",
                state_key,
                {"history_visibility": "world_readable"},
                position=AT,
                visibility_before=JOINED,
                membership_before=None,
                reader_id=ME,
            )
            self.assertFalse(sees(facts, NEVER))

    def test_own_join_and_own_leave(self) -> None:
        """Shows HV-4."""
        for visibility in HistoryVisibility:
            self.assertTrue(sees(self.own_member_event(visibility, None, "join"), NEVER))
            self.assertTrue(sees(self.own_member_event(visibility, "join", "leave"), NEVER))
            self.assertTrue(sees(self.own_member_event(visibility, "join", "ban"), NEVER))

    def test_own_invite(self) -> None:
        """Shows HV-4."""
        for visibility in HistoryVisibility:
            self.assertEqual(
                sees(self.own_member_event(visibility, None, "invite"), NEVER),
                visibility in (WORLD, INVITED),
            )

    def test_the_end_of_an_own_invite_or_knock(self) -> None:
        for before, after in itertools.product(("invite", "knock"), ("leave", "ban")):
            self.assertTrue(sees(self.own_member_event(JOINED, before, after), NEVER))
        self.assertFalse(sees(self.own_member_event(JOINED, "leave", "ban"), NEVER))

    def test_member_events_of_others_do_not_count(self) -> None:
        """Shows HV-4."""
        facts = EventFacts.of(
            "m.room.member",
            "@other:example.org",
            {"membership": "join"},
            position=AT,
            visibility_before=JOINED,
            membership_before=None,
            reader_id=ME,
        )
        self.assertFalse(sees(facts, NEVER))
        self.assertTrue(may_see(JOINED, JOINED, None, "join", joined_later=False))


class ErasureTests(SynchronousTestCase):
    def verdict(
        self, reader: Reader, membership: str | None, visibility: HistoryVisibility = SHARED
    ) -> Verdict:
        return verdict(message(visibility, membership, erased_at=100), reader)

    def test_who_came_after_gets_the_redacted_form(self) -> None:
        """Shows HV-7."""
        self.assertIs(self.verdict(Reader(120, FOREVER), None), Verdict.REDACTED)
        self.assertIs(self.verdict(NEVER, None, WORLD), Verdict.REDACTED)

    def test_who_was_there_still_sees_the_event(self) -> None:
        """Shows HV-7."""
        self.assertIs(self.verdict(Reader(10, FOREVER), "join"), Verdict.VISIBLE)
        self.assertIs(self.verdict(Reader(10, 60), "join", JOINED), Verdict.VISIBLE)

    def test_who_could_look_back_before_the_erasure_still_can(self) -> None:
        """Shows HV-7."""
        self.assertIs(self.verdict(Reader(60, FOREVER), None), Verdict.VISIBLE)
        self.assertIs(self.verdict(Reader(60, 70), None), Verdict.VISIBLE)

    def test_own_member_events_at_the_edge_of_a_stay(self) -> None:
        """Shows HV-7."""
        for before, after in (("join", "leave"), ("invite", "join")):
            facts = message(SHARED, before, erased_at=100)._replace(membership_after=after)
            self.assertIs(verdict(facts, NEVER), Verdict.VISIBLE)

    def test_a_stay_that_ended_before_the_event_does_not_count(self) -> None:
        """Shows HV-7."""
        self.assertIs(self.verdict(Reader(10, 40), "leave", WORLD), Verdict.REDACTED)

    def test_erasure_shows_nothing_more(self) -> None:
        """Shows HV-7."""
        self.assertIs(self.verdict(NEVER, None), Verdict.HIDDEN)


class ServerTests(SynchronousTestCase):
    def test_any_user_of_the_server_counts(self) -> None:
        """Shows HV-3."""
        here = Reader(10, FOREVER)
        cases: list[tuple[HistoryVisibility, list[str | None], Reader, bool]] = [
            (JOINED, ["leave", "join"], here, True),
            (JOINED, ["leave", "invite"], here, False),
            (INVITED, ["leave", "invite"], here, True),
            (SHARED, [], here, True),
            (SHARED, ["leave"], Reader(10, 40), False),
            (WORLD, [], NEVER, True),
            (INVITED, [], here, False),
        ]
        for visibility, memberships, server, expected in cases:
            facts = message(visibility, None)
            seen = server_verdict(facts, memberships, server) is not Verdict.HIDDEN
            self.assertEqual(seen, expected, (visibility, memberships))

    def test_member_events_of_its_users_count_before_and_after(self) -> None:
        """Shows HV-4."""
        facts = message(JOINED, None)._replace(membership_after="join")
        self.assertIs(server_verdict(facts, [], NEVER), Verdict.VISIBLE)

    def test_erasure(self) -> None:
        """Shows HV-7."""
        facts = message(SHARED, None, erased_at=100)
        self.assertIs(server_verdict(facts, [None], Reader(120, FOREVER)), Verdict.REDACTED)
        self.assertIs(server_verdict(facts, ["join"], Reader(120, FOREVER)), Verdict.VISIBLE)
        self.assertIs(server_verdict(facts, [None], Reader(60, FOREVER)), Verdict.VISIBLE)
