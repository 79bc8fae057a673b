"""The part of the composition root that builds what is not in the specification yet."""

from __future__ import annotations

from federation.client.requests import FederationClient
from homeserver.core.retention import RetentionPolicy
from homeserver.parts import Parts
from homeserver.rooms.delayed import DelayedEvents
from homeserver.rooms.forgetting import Forgetting
from homeserver.rooms.purge import HistoryPurge
from homeserver.rooms.retention import Retention, RetentionPurge
from homeserver.rooms.room_facts import RoomFacts
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.unredacted import UnredactedEvents
from homeserver.sync.engine import SyncEngine
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
    _build_retention(parts)
    services[SyncEngine].counts_messages = parts.config.experimental.unread_messages
    forgetting = add(Forgetting(db, reactor, kept_ms))
    parts.stops.append(forgetting.stop)


def _build_retention(parts: Parts) -> None:
    """What hides and purges messages that are too old."""
    wanted, services = parts.config.message_retention, parts.services
    policy = None
    if wanted.enabled:
        times = (wanted.max_lifetime, wanted.min_lifetime, wanted.shortest, wanted.longest)
        policy = RetentionPolicy(*(None if time is None else int(time) for time in times))
    retention = services.add(Retention(policy, parts.reactor))
    if retention.enabled:
        services[StateStore].begins = retention.begins
    purge = RetentionPurge(parts.db, retention, services[HistoryPurge], parts.reactor)
    parts.stops.append(services.add(purge).stop)


def start_experimental(parts: Parts) -> None:
    """Begin with what is done without being asked."""
    parts.services[Forgetting].start()
    parts.services[RetentionPurge].start()
    parts.services[DelayedEvents].start()
