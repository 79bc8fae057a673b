"""What the roots of states prove about the newest events of a room."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.visibility import HistoryVisibility
from homeserver.rooms.shown_rooms import ShownEvent
from homeserver.sync.unbroken import is_open, is_unbroken, own_memberships

USER = "@bob:a"
SHARED = HistoryVisibility.SHARED


def message(root: bytes | None, number: int = 1) -> ShownEvent:
    """A message where the state has this root."""
    return _event(number, root, root, "m.room.message", None, None, None)


def state(
    before: bytes,
    after: bytes,
    *,
    kind: str = "m.room.member",
    key: str = USER,
    membership: str | None = "join",
    number: int = 1,
    replaces: int | None = None,
) -> ShownEvent:
    """A state event between two states."""
    return _event(number, before, after, kind, key, membership, replaces)


def _event(
    number: int,
    before: bytes | None,
    after: bytes | None,
    kind: str,
    key: str | None,
    membership: str | None,
    replaces: int | None,
) -> ShownEvent:
    old = None if replaces is None else f"${replaces}"
    placed = (number, f"${number}", number, kind, key, "@x:a")
    return ShownEvent(*placed, before, after, old, None, None, None, False, membership)


class UnbrokenTest(SynchronousTestCase):
    def test_chain(self) -> None:
        events = [message(b"2"), state(b"1", b"2"), message(b"1")]
        self.assertTrue(is_unbroken(events, b"2"))
        self.assertTrue(is_unbroken([], b"2"))

    def test_what_breaks_it(self) -> None:
        self.assertFalse(is_unbroken([message(b"2")], b"3"))
        self.assertFalse(is_unbroken([message(b"2")], None))
        self.assertFalse(is_unbroken([message(None)], None))
        self.assertFalse(is_unbroken([message(b"2"), message(b"1")], b"2"))
        # A state event that did not come into the state; a message after which it is another.
        self.assertFalse(is_unbroken([state(b"2", b"2")], b"2"))
        changed = message(b"2")._replace(state_before=b"1")
        self.assertFalse(is_unbroken([changed], b"2"))


class MembershipTest(SynchronousTestCase):
    def test_who_never_was_there_before(self) -> None:
        events = [message(b"2"), state(b"1", b"2"), message(b"1")]
        self.assertEqual(own_memberships(events, USER), ["join", "join", "leave"])
        self.assertEqual(own_memberships([message(b"2")], USER), ["join"])

    def test_what_an_older_event_says(self) -> None:
        join = state(b"1", b"2", number=5, replaces=3)
        events = [message(b"2"), join, message(b"1"), message(b"1")]
        self.assertIsNone(own_memberships(events, USER))
        self.assertEqual(own_memberships(events[:2], USER), ["join", "join"])
        invite = state(b"0", b"1", number=3, membership="invite")
        found = own_memberships([*events, invite, message(b"0")], USER)
        self.assertEqual(found, ["join", "join", "invite", "invite", "invite", "leave"])

    def test_what_does_not_fit(self) -> None:
        join = state(b"1", b"2", number=5, replaces=3)
        for older in (state(b"0", b"1", number=4), state(b"0", b"1", number=3, membership=None)):
            self.assertIsNone(own_memberships([join, older], USER))
        first = state(b"1", b"2", number=5)
        self.assertIsNone(own_memberships([first, state(b"0", b"1", number=3)], USER))

    def test_others(self) -> None:
        events = [state(b"1", b"2", key="@other:a", membership="ban", replaces=9), message(b"1")]
        self.assertEqual(own_memberships(events, USER), ["join", "join"])


class OpenTest(SynchronousTestCase):
    def test_current_visibility(self) -> None:
        events = [message(b"1")]
        for visibility in HistoryVisibility:
            expected = visibility in (SHARED, HistoryVisibility.WORLD_READABLE)
            self.assertIs(is_open(events, visibility), expected)

    def test_changes(self) -> None:
        kind = "m.room.history_visibility"
        for replaces in (None, 3):
            event = state(b"1", b"2", kind=kind, key="", membership=None, replaces=replaces)
            self.assertIs(is_open([event, message(b"1")], SHARED), replaces is None)
