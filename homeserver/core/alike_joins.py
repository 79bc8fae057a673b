"""Joins that are alike to the authorisation rules, so that one judgement is enough for all.

A large room has thousands of joins that name the same auth events. Of a user's first join in a
public room, the rules look at nothing that is the user's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeserver.core.event import Event

_Key = tuple[tuple[str, ...], str, str | None]


class AlikeJoins:
    """Joins that were allowed by their own auth events (rules 1 to 5 of `auth_rules`).

    Another join is allowed like one of these if it names the same auth events, none of them a
    member event: then it is one that a public room lets in, whoever it is. It is so only while
    the verdicts on the auth events stay as they are.
    """

    def __init__(self) -> None:
        self._allowed: set[_Key] = set()

    def allow(self, event: Event, create: Event | None) -> bool:
        """Whether the rules allow an event because they allowed one that is alike.

        Parameters: `create`, the room's create event as far as it is known apart from the event's
        own auth events and its room ID, which are among what has to be alike.
        """
        return _is_plain(event) and _key(event, create) in self._allowed

    def note(
        self, event: Event, named: Iterable[Event], create: Event | None, judged_by: Event
    ) -> None:
        """Take note of an event that the rules have allowed.

        Parameters: `named`, its auth events, all of them; `create` as of `allow`; `judged_by`,
        the create event that the rules went by.
        """
        if (
            _is_plain(event)
            # Rule 5.3.1: the creator's own join is allowed by another rule than the room's.
            and event.prev_event_ids != (judged_by.event_id,)
            # Rule 4: in a closed room the sender's server counts.
            and judged_by.content.get("m.federate", True) is True
            and not any(other.type == "m.room.member" for other in named)
        ):
            self._allowed.add(_key(event, create))


def _is_plain(event: Event) -> bool:
    """Whether an event is a user's own join, and nobody else had to permit it."""
    return (
        event.membership == "join"
        and event.state_key == event.sender
        and "join_authorised_via_users_server" not in event.content
    )


def _key(event: Event, create: Event | None) -> _Key:
    return event.auth_event_ids, event.room_id, create.event_id if create is not None else None
