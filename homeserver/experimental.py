"""The part of the composition root that builds what is not in the specification yet."""

from __future__ import annotations

from federation.client.requests import FederationClient
from homeserver.parts import Parts
from homeserver.rooms.delayed import DelayedEvents
from homeserver.rooms.forgetting import Forgetting
from homeserver.rooms.room_facts import RoomFacts
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.unredacted import UnredactedEvents
from homeserver.users.account_status import AccountStatuses
from homeserver.users.hooks import UserHooks
from storage import redacted_contents, thread_subscriptions
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
    kept_ms = int(parts.config.redactions.keep_content)
    states.keeps_redacted = kept_ms > 0
    add(UnredactedEvents(db, states, reactor, kept_ms))
    hooks.erase.append(redacted_contents.erase)
    forgetting = add(Forgetting(db, reactor, kept_ms))
    parts.stops.append(forgetting.stop)


def start_experimental(parts: Parts) -> None:
    """Begin with what is done without being asked."""
    parts.services[Forgetting].start()
    parts.services[DelayedEvents].start()
