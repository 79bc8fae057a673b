"""Bringing the branches of a room together.

Each event that is placed beside the others, and not after them, is one more head of the room. All
heads have a part in resolving the current state, with every event that comes: a server that makes
heads by the thousand would keep this one busy with little else. So when there are more than an
event can name, one of this server's users says something that names them, and shows nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.event_format import MAX_PREV_EVENTS
from homeserver.rooms.build import EventTemplate, LocalSigner
from homeserver.rooms.draft import RoomDraft

MAX_HEADS = MAX_PREV_EVENTS
"""Heads of a room that are left as they are."""

DUMMY = "org.matrix.dummy_event"
"""The type of events that only join branches; other servers make such events too."""

_MEMBER = "m.room.member"
_MAX_SENDERS = 5
_SIGNED = "join_authorised_via_users_server"


def merges(
    draft: RoomDraft, senders: Sequence[str], signer: LocalSigner, now_ms: int
) -> Iterator[Event]:
    """Events of which each names as many heads as it can, by one of these local users; the first
    one that the room's rules allow will do. Making them changes nothing."""
    for template in _templates(draft, senders[:_MAX_SENDERS]):
        event_id = None
        if draft.version.event_format == 1:
            event_id = f"${secrets.token_hex(12)}:{signer.server_name}"
        try:
            yield draft.build(template, signer, now_ms, event_id)
        except MatrixError:
            continue


def _templates(draft: RoomDraft, senders: Sequence[str]) -> Iterator[EventTemplate]:
    for user_id in senders:
        yield EventTemplate(DUMMY, user_id, {})
    # Where nobody may say anything, everybody may still be who they are.
    for user_id in senders:
        member = draft.get(_MEMBER, user_id)
        if member is not None:
            content = {key: value for key, value in member.content.items() if key != _SIGNED}
            yield EventTemplate(_MEMBER, user_id, content, user_id)
