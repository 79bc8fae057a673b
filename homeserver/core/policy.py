"""Policy servers: which one a room has, and whether it recommends an event.

Server-Server API, "Policy Servers".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacl.signing import VerifyKey

from homeserver.core.event import Event
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.signing import SignatureError, parse_verify_key, verify_event_with
from homeserver.core.types import JsonObject, StateKey

POLICY: StateKey = ("m.room.policy", "")
KEY_ID = "ed25519:policy_server"
"""Of the signatures of all policy servers, whatever keys they publish as homeservers."""


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """A room's policy server, in force if it has a joined user in the room.

    `key` is None where the room names one that is no key: then nothing is recommended.
    """

    name: ServerName
    key: VerifyKey | None


def policy_server(content: Any) -> PolicyServer | None:
    """The policy server that the content of `m.room.policy` names; None if it is not valid."""
    if not isinstance(content, dict):
        return None
    via, keys = content.get("via"), content.get("public_keys")
    text = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(via, str) or not isinstance(text, str):
        return None
    try:
        name = ServerName.parse(via)
    except InvalidIdentifier:
        return None
    try:
        return PolicyServer(name, parse_verify_key(text))
    except ValueError:
        return PolicyServer(name, None)


def needs_signature(event: Event) -> bool:
    """Whether a policy server is asked about an event: about all but its own appointment."""
    return not (event.is_state and event.key == POLICY)


def is_recommended(event: Event, server: PolicyServer) -> bool:
    """Whether the event needs no signature of the policy server, or bears it."""
    if not needs_signature(event):
        return True
    if server.key is None:
        return False
    try:
        verify_event_with(event.pdu, event.version, server.name, KEY_ID, server.key)
    except SignatureError:
        return False
    return True


def with_signature(event: Event, answer: JsonObject, server: PolicyServer) -> Event:
    """The event with the signature of a policy server's answer; those that it had are kept."""
    given = answer.get(server.name)
    signature = given.get(KEY_ID) if isinstance(given, dict) else None
    if not isinstance(signature, str):
        return event
    signatures = dict(event.pdu.get("signatures") or {})
    own = signatures.get(server.name)
    signatures[server.name] = {**(own if isinstance(own, dict) else {}), KEY_ID: signature}
    return Event(event.event_id, event.version, {**event.pdu, "signatures": signatures})
