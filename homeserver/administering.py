"""Composition of what administrators do to accounts, and see of the server."""

from __future__ import annotations

from homeserver.parts import Parts
from homeserver.rooms.mass_redactions import MassRedactions
from homeserver.rooms.send import Sending
from homeserver.rooms.tasks import ScheduledTasks
from homeserver.users.accounts import Accounts
from homeserver.users.administration import AccountAdministration
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import Profiles
from homeserver.users.puppets import Puppets
from homeserver.users.sessions import Sessions
from homeserver.users.user_records import UserRecords


def build_account_administration(parts: Parts) -> None:
    """Changing accounts, acting as users, redacting what they sent."""
    services, add, db, reactor = parts.services, parts.services.add, parts.db, parts.reactor
    server_name = parts.config.server_name
    add(
        AccountAdministration(
            db,
            reactor,
            services[Accounts],
            services[Passwords],
            services[Profiles],
            services[Sessions],
            server_name,
        )
    )
    add(Puppets(db, reactor))
    add(UserRecords(db, server_name))
    redactions = add(MassRedactions(db, reactor, services[Sending], server_name))
    parts.jobs[MassRedactions.KIND] = redactions.run
    add(ScheduledTasks(db, reactor))
