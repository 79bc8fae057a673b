"""Composing `/sync`."""

from __future__ import annotations

from homeserver.parts import Parts
from homeserver.rooms.append import Appender
from homeserver.sync.engine import SyncEngine
from homeserver.sync.journal import Journal
from homeserver.sync.long_poll import Sync
from homeserver.sync.notifier import Notifier
from homeserver.sync.sliding.engine import SlidingEngine
from homeserver.sync.sliding.long_poll import SlidingSync
from homeserver.users.presence import PresenceTracker
from storage.ephemeral import EphemeralStore
from storage.state import StateStore


def build_sync(parts: Parts) -> None:
    """Add the services that answer `/sync` and sliding sync."""
    services, db, reactor = parts.services, parts.db, parts.reactor
    notifier, ephemeral = services[Notifier], services.following(EphemeralStore)
    states, name = services[StateStore], parts.config.server_name
    engine, presence = services[SyncEngine], services[PresenceTracker]
    journal = services.add(Journal(db, states, notifier, ephemeral, presence, reactor, name))
    services[Appender].on_messages.append(journal.written)
    count = parts.metrics.synced
    services.add(Sync(db, engine, notifier, ephemeral, presence, reactor, journal, count))
    sliding, count = SlidingEngine(states), parts.metrics.slid
    services.add(SlidingSync(db, sliding, notifier, ephemeral, presence, reactor, journal, count))
