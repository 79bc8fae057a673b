"""Who may see an event: room history visibility, decided on plain data.

Client-server API, "Room History Visibility", server behaviour. The visibility and the reader's
membership are those *at the event*, never today's (HV-1); today counts only for "joined at any
point after the event was sent", which `Reader` tells.

Bulk use: look up `Reader` once per room, and for each event the `m.room.history_visibility` and
the reader's `m.room.member` in the state *before* the event; `EventFacts.of` adds what the event
itself changes, `verdict` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum
from typing import Any, NamedTuple

FOREVER = 2**63 - 1
"""`Reader.joined_until` of a reader who is in the room."""


class HistoryVisibility(StrEnum):
    """Values of `m.room.history_visibility`, the most open one first."""

    WORLD_READABLE = "world_readable"
    SHARED = "shared"
    INVITED = "invited"
    JOINED = "joined"


class Verdict(Enum):
    """REDACTED: to be shown, but as its redacted form (the sender had their account erased)."""

    HIDDEN = "hidden"
    VISIBLE = "visible"
    REDACTED = "redacted"


_BY_NAME = {str(value): value for value in HistoryVisibility}


def visibility_of(content: Any) -> HistoryVisibility:
    """The visibility that an event's content sets. Absent or not understood: shared (HV-2)."""
    value = content.get("history_visibility") if isinstance(content, dict) else None
    if not isinstance(value, str):
        return HistoryVisibility.SHARED
    return _BY_NAME.get(value, HistoryVisibility.SHARED)


def is_world_readable(content: Any) -> bool:
    """Whether any authenticated user, guests included, may read the room now (HV-6)."""
    return visibility_of(content) is HistoryVisibility.WORLD_READABLE


def membership_of(content: Any) -> str | None:
    """The membership that an `m.room.member` content sets; None if there is none."""
    value = content.get("membership") if isinstance(content, dict) else None
    return value if isinstance(value, str) else None


class Reader(NamedTuple):
    """The latest stay of a reader (or of any user of a server) in a room, in log positions.

    `joined_since` is the position of the join, `joined_until` that of the event that ended the
    stay, or `FOREVER`. Both None: never joined.
    """

    joined_since: int | None = None
    joined_until: int | None = None

    def joined_after(self, position: int) -> bool:
        """Whether the reader was in the room at some point after `position`."""
        return self.joined_until is not None and self.joined_until > position


class EventFacts(NamedTuple):
    """What decides about one event and one reader. Values after equal those before, except for
    `m.room.history_visibility` events and the reader's own `m.room.member` events."""

    position: int
    visibility_before: HistoryVisibility
    visibility_after: HistoryVisibility
    membership_before: str | None
    membership_after: str | None
    erased_at: int | None = None

    @classmethod
    def of(
        cls,
        event_type: str,
        state_key: str | None,
        content: Any,
        *,
        position: int,
        visibility_before: HistoryVisibility,
        membership_before: str | None,
        reader_id: str,
        erased_at: int | None = None,
    ) -> EventFacts:
        """Facts from an event and the state before it.

        Parameters: `position` in the log (negative for fetched history); `erased_at`, the
        position at which the sender's account was erased, None if it was not.
        """
        visibility_after, membership_after = visibility_before, membership_before
        if state_key is not None:
            if event_type == "m.room.history_visibility" and state_key == "":
                visibility_after = visibility_of(content)
            elif event_type == "m.room.member" and state_key == reader_id:
                membership_after = membership_of(content)
        return cls(
            position,
            visibility_before,
            visibility_after,
            membership_before,
            membership_after,
            erased_at,
        )


def allows(visibility: HistoryVisibility, membership: str | None, joined_later: bool) -> bool:
    """The five rules, for one visibility and one membership at the event."""
    if visibility is HistoryVisibility.WORLD_READABLE or membership == "join":
        return True
    if visibility is HistoryVisibility.SHARED:
        return joined_later
    return visibility is HistoryVisibility.INVITED and membership == "invite"


def may_see(
    visibility_before: HistoryVisibility,
    visibility_after: HistoryVisibility,
    membership_before: str | None,
    membership_after: str | None,
    *,
    joined_later: bool,
) -> bool:
    """The laxer of before and after (HV-4). `joined_later`: at any point after the event."""
    if allows(visibility_before, membership_before, joined_later):
        return True
    if visibility_after is not visibility_before and allows(
        visibility_after, membership_before, joined_later
    ):
        return True
    if membership_after == membership_before:
        return False
    if allows(visibility_before, membership_after, joined_later):
        return True
    # An invitation or a knock was shown to its user as stripped state: so is its end, or clients
    # would keep showing it.
    return membership_before in ("invite", "knock") and membership_after in ("leave", "ban")


def verdict(facts: EventFacts, reader: Reader) -> Verdict:
    """Whether, and in which form, the reader is shown the event."""
    visible = may_see(
        facts.visibility_before,
        facts.visibility_after,
        facts.membership_before,
        facts.membership_after,
        joined_later=reader.joined_after(facts.position),
    )
    if not visible:
        return Verdict.HIDDEN
    there = facts.membership_before == "join" or facts.membership_after == "join"
    return _form(facts.erased_at, there, facts.position, reader)


def server_verdict(facts: EventFacts, memberships: Iterable[str | None], server: Reader) -> Verdict:
    """Whether, and in which form, a server is sent the event: if any of its users may see it.

    Parameters: `facts` made with the `reader_id` of any user of the server (the sender's or the
    target's for member events, whose memberships count before and after); `memberships` of all
    its users at the event; `server`, the latest stay of any of its users.
    """
    joined_later = server.joined_after(facts.position)
    at_event = {facts.membership_before, facts.membership_after, *memberships}
    visible = any(
        allows(visibility, membership, joined_later)
        for visibility in {facts.visibility_before, facts.visibility_after}
        for membership in at_event
    )
    if not visible:
        return Verdict.HIDDEN
    return _form(facts.erased_at, "join" in at_event, facts.position, server)


def _form(erased_at: int | None, there: bool, position: int, reader: Reader) -> Verdict:
    """HV-7: erasure spares those who were there, or came before it and could look back."""
    if erased_at is None or there:
        return Verdict.VISIBLE
    if (
        reader.joined_since is not None
        and reader.joined_since < erased_at
        and reader.joined_after(position)
    ):
        return Verdict.VISIBLE
    return Verdict.REDACTED
