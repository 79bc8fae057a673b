"""Rule 5 of the authorisation rules: member events.

Room versions, "Authorisation rules". The functions follow the numbered steps of room version 12;
a step that came with a later version is guarded by a flag of `RoomVersion`. A return allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nacl.signing import VerifyKey

from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.power_levels import PowerLevels, is_user_id, room_creators
from homeserver.core.rejection import EventRejected
from homeserver.core.signing import SignatureError, parse_verify_key, signatures_of, verify_json
from homeserver.core.types import JsonObject, StateKey

_JOIN_RULES = ("m.room.join_rules", "")

MAX_SIGNATURE_CHECKS: Final = 256
"""An invite with more pairs of signature and key than this is refused: each costs a check."""


@dataclass(slots=True)
class _Case:
    """A member event, and what of the state its rules look at."""

    event: Event
    state: Mapping[StateKey, Event]
    create: Event
    target: str
    sender: str
    content: JsonObject

    @property
    def power(self) -> PowerLevels:
        """The levels in the state."""
        return PowerLevels.of(self.state.get(("m.room.power_levels", "")), self.create)

    def membership(self, user_id: str) -> str | None:
        return membership_of(self.state, user_id)


def membership_of(state: Mapping[StateKey, Event], user_id: str) -> str | None:
    """The membership of a user in `state`; None without a member event or a readable one."""
    event = state.get(("m.room.member", user_id))
    return None if event is None else event.membership


def _join_rule(state: Mapping[StateKey, Event]) -> str | None:
    """`invite` if there is no join rule; None if there is one that is not a string."""
    event = state.get(_JOIN_RULES)
    rule = "invite" if event is None else event.content.get("join_rule", "invite")
    return rule if isinstance(rule, str) else None


def check_member(
    event: Event,
    state: Mapping[StateKey, Event],
    create: Event,
    signed_by: Callable[[str], bool] | None = None,
) -> None:
    """Rule 5: may this `m.room.member` event happen in `state`?

    `signed_by` tells whether a server has validly signed the event; by default, all whose
    signatures it bears have. Raises `EventRejected`.
    """
    target = event.state_key
    membership = event.membership
    # 5.1
    if target is None or membership is None:
        raise EventRejected("5.1", "The member event lacks a state key or a membership.")
    # Not in the list, but in the event's schema, and other servers reject it as well.
    if target != event.sender and not is_user_id(target):
        raise EventRejected("5.1", "The state key of the member event is not a user ID.")
    content = event.content
    # 5.2
    if "join_authorised_via_users_server" in content and event.version.restricted_joins:
        _check_authoriser_signature(event, content, signed_by)
    # 5.3 to 5.8
    if membership == "join":
        _check_join(event, state, create)
        return
    if membership == "knock" and not event.version.knocking:
        raise EventRejected("5.8", "This room version does not know knocking.")
    rules = _RULES.get(membership)
    if rules is None:
        raise EventRejected("5.8", f"The membership {membership!r} is unknown.")
    rules(_Case(event, state, create, target, event.sender, content))


def _check_authoriser_signature(
    event: Event, content: JsonObject, signed_by: Callable[[str], bool] | None
) -> None:
    """Rule 5.2.1."""
    authoriser = content["join_authorised_via_users_server"]
    if not is_user_id(authoriser):
        signed = False
    elif signed_by is None:
        signed = bool(signatures_of(event.pdu, domain_of(authoriser)))
    else:
        signed = signed_by(domain_of(authoriser))
    if not signed:
        raise EventRejected("5.2.1", "The authorising user's server has not signed the event.")


def _check_join(event: Event, state: Mapping[StateKey, Event], create: Event) -> None:
    """Rule 5.3."""
    # Nearly all member events are joins: nothing is prepared for these but what the rule needs.
    sender, target = event.sender, event.state_key
    version = event.version
    previous = event.prev_event_ids
    # 5.3.1: in these versions only the sender of the create event, no additional creator.
    if len(previous) == 1 and previous[0] == create.event_id:
        first = {create.sender} if version.implicit_room_creator else room_creators(create)
        if target in first:
            return
    # 5.3.2
    if sender != target:
        raise EventRejected("5.3.2", "Nobody can join for somebody else.")
    member = state.get(("m.room.member", sender))
    membership = None if member is None else member.membership
    # 5.3.3
    if membership == "ban":
        raise EventRejected("5.3.3", "The sender is banned.")
    # 5.3.4
    rule = _join_rule(state)
    if rule == "invite" or (rule == "knock" and version.knocking):
        if membership in ("invite", "join"):
            return
        raise EventRejected("5.3.7", "The room can only be joined with an invite.")
    # 5.3.5
    if (rule == "restricted" and version.restricted_joins) or (
        rule == "knock_restricted" and version.knock_restricted
    ):
        # 5.3.5.1
        if membership not in ("join", "invite"):
            _check_authoriser(_Case(event, state, create, sender, sender, event.content))
        return
    # 5.3.6, 5.3.7
    if rule != "public":
        raise EventRejected("5.3.7", "The join rule of the room lets nobody join.")


def _check_authoriser(case: _Case) -> None:
    """Rule 5.3.5.2."""
    authoriser = case.content.get("join_authorised_via_users_server")
    if not isinstance(authoriser, str):
        raise EventRejected("5.3.5.2", "The restricted join names no authorising user.")
    if case.membership(authoriser) != "join":
        raise EventRejected("5.3.5.2", "The authorising user is not in the room.")
    if case.power.user_level(authoriser) < case.power.invite:
        raise EventRejected("5.3.5.2", "The authorising user may not invite.")


def _check_invite(case: _Case) -> None:
    """Rule 5.4."""
    # 5.4.1
    if "third_party_invite" in case.content:
        _check_third_party_invite(case)
        return
    # 5.4.2
    if case.membership(case.sender) != "join":
        raise EventRejected("5.4.2", "The sender is not in the room.")
    # 5.4.3
    if case.membership(case.target) in ("join", "ban"):
        raise EventRejected("5.4.3", "The invited user is in the room or banned from it.")
    # 5.4.4, 5.4.5
    if case.power.user_level(case.sender) < case.power.invite:
        raise EventRejected("5.4.5", "The sender may not invite.")


def _check_third_party_invite(case: _Case) -> None:
    """Rule 5.4.1."""
    # 5.4.1.1
    if case.membership(case.target) == "ban":
        raise EventRejected("5.4.1.1", "The invited user is banned.")
    # 5.4.1.2
    invite = case.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise EventRejected("5.4.1.2", "The third-party invite is not signed.")
    # 5.4.1.3
    mxid, token = signed.get("mxid"), signed.get("token")
    if not isinstance(mxid, str) or not isinstance(token, str):
        raise EventRejected("5.4.1.3", "The third-party invite lacks mxid or token.")
    # 5.4.1.4
    if mxid != case.target:
        raise EventRejected("5.4.1.4", "The third-party invite is for another user.")
    # 5.4.1.5
    original = case.state.get(("m.room.third_party_invite", token))
    if original is None:
        raise EventRejected("5.4.1.5", "The room has no third-party invite with this token.")
    # 5.4.1.6
    if case.sender != original.sender:
        raise EventRejected("5.4.1.6", "The third-party invite was sent by somebody else.")
    # 5.4.1.7, 5.4.1.8
    if not _any_signature_valid(signed, original.content):
        raise EventRejected("5.4.1.8", "No signature matches a key of the third-party invite.")


def _any_signature_valid(signed: JsonObject, invite_content: JsonObject) -> bool:
    """Rule 5.4.1.7: is any signature on `signed` by any key in the third-party invite?"""
    keys = list(_public_keys(invite_content))
    signatures = signed.get("signatures")
    pairs = [
        (server, key_id)
        for server in (signatures if isinstance(signatures, dict) else ())
        for key_id in signatures_of(signed, server)
    ]
    if len(keys) * len(pairs) > MAX_SIGNATURE_CHECKS:
        return False
    return any(_is_valid(signed, server, key_id, key) for server, key_id in pairs for key in keys)


def _is_valid(signed: JsonObject, server: str, key_id: str, key: VerifyKey) -> bool:
    try:
        verify_json(signed, server, key_id, key)
    except SignatureError:
        return False
    return True


def _public_keys(content: JsonObject) -> Iterator[VerifyKey]:
    """The readable keys of a third-party invite: `public_key` and those in `public_keys`."""
    candidates: list[Any] = [content.get("public_key")]
    public_keys = content.get("public_keys")
    if isinstance(public_keys, list):
        candidates += [key.get("public_key") for key in public_keys if isinstance(key, dict)]
    for text in dict.fromkeys(text for text in candidates if isinstance(text, str)):
        try:
            yield parse_verify_key(text)
        except ValueError:
            continue


def _check_leave(case: _Case) -> None:
    """Rule 5.5."""
    membership = case.membership(case.target)
    # 5.5.1
    if case.sender == case.target:
        left = ("invite", "join", "knock") if case.event.version.knocking else ("invite", "join")
        if membership not in left:
            raise EventRejected("5.5.1", "The sender is not in the room.")
        return
    # 5.5.2
    if case.membership(case.sender) != "join":
        raise EventRejected("5.5.2", "The sender is not in the room.")
    level = case.power.user_level(case.sender)
    # 5.5.3
    if membership == "ban" and level < case.power.ban:
        raise EventRejected("5.5.3", "The sender may not unban.")
    # 5.5.4, 5.5.5
    if level < case.power.kick:
        raise EventRejected("5.5.5", "The sender may not kick.")
    if case.power.user_level(case.target) >= level:
        raise EventRejected("5.5.5", "The target has at least as much power as the sender.")


def _check_ban(case: _Case) -> None:
    """Rule 5.6."""
    # 5.6.1
    if case.membership(case.sender) != "join":
        raise EventRejected("5.6.1", "The sender is not in the room.")
    # 5.6.2, 5.6.3
    level = case.power.user_level(case.sender)
    if level < case.power.ban:
        raise EventRejected("5.6.3", "The sender may not ban.")
    if case.power.user_level(case.target) >= level:
        raise EventRejected("5.6.3", "The target has at least as much power as the sender.")


def _check_knock(case: _Case) -> None:
    """Rule 5.7."""
    # 5.7.1
    rule = _join_rule(case.state)
    if rule != "knock" and not (rule == "knock_restricted" and case.event.version.knock_restricted):
        raise EventRejected("5.7.1", "The join rule of the room does not let users knock.")
    # 5.7.2
    if case.sender != case.target:
        raise EventRejected("5.7.2", "Nobody can knock for somebody else.")
    # 5.7.3, 5.7.4
    if case.membership(case.sender) in ("ban", "invite", "join"):
        raise EventRejected("5.7.4", "The sender is banned, invited or in the room.")


_RULES: Final[Mapping[str, Callable[[_Case], None]]] = {
    # Without `join`.
    "invite": _check_invite,
    "leave": _check_leave,
    "ban": _check_ban,
    "knock": _check_knock,
}
