"""The part of the composition root that builds what is not in the specification yet."""

from __future__ import annotations

from federation.client.requests import FederationClient
from homeserver.parts import Parts
from homeserver.rooms.room_facts import RoomFacts
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.users.account_status import AccountStatuses
from homeserver.users.hooks import UserHooks
from storage import thread_subscriptions
from storage.state import StateStore


def build_experimental(parts: Parts) -> None:
    """Build services of proposals (MSCs) that no other part needs."""
    db, reactor, services, add = parts.db, parts.reactor, parts.services, parts.services.add
    client, server_name = services[FederationClient], parts.config.server_name
    states, hooks = services[StateStore], services[UserHooks]
    add(AccountStatuses(db, client, reactor, server_name))
    add(RoomFacts(db, states))
    add(ThreadSubscriptions(db, states))
    hooks.deactivated.append(thread_subscriptions.delete_all)
