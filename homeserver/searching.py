"""Composition of what finds messages and users, and of what goes to and from administrators."""

from __future__ import annotations

from config import Config
from homeserver.administering import build_account_administration
from homeserver.core.ids import UserID
from homeserver.overseeing import build_room_administration, start_room_administration
from homeserver.parts import Parts
from homeserver.rooms.append import Appender
from homeserver.rooms.create import RoomCreation
from homeserver.rooms.membership import Membership
from homeserver.rooms.networks import ThirdPartyNetworks
from homeserver.rooms.notices import USER_TYPE, ServerNotices
from homeserver.rooms.reports import Reports
from homeserver.rooms.search import Search
from homeserver.rooms.searchable import SearchableTexts
from homeserver.rooms.send import Sending
from homeserver.rooms.threads import Threads
from homeserver.rooms.user_directory import UserDirectory, UserWords
from homeserver.users.accounts import Accounts
from homeserver.users.hooks import UserHooks
from homeserver.users.profiles import Profiles
from homeserver.users.tags import Tags
from storage.state import StateStore


def build_searching(parts: Parts) -> None:
    """Search, the user directory, lists of threads, reports, other networks."""
    add, db, reactor = parts.services.add, parts.db, parts.reactor
    states, server_name = parts.services[StateStore], parts.config.server_name
    texts = add(SearchableTexts(db, reactor, parts.metrics.made_searchable))
    people = add(UserWords(db, reactor, server_name))
    parts.services[Appender].on_written += [texts.written, people.written]
    parts.services[UserHooks].profile_changed.append(people.profile_changed)
    parts.stops += [texts.stop, people.stop]
    add(Search(db, states, texts, reactor))
    add(UserDirectory(db, people, server_name))
    add(Reports(db, states, reactor, server_name))
    add(Threads(db, states, reactor))
    add(ThirdPartyNetworks())
    build_room_administration(parts)
    build_account_administration(parts)


def start_searching(parts: Parts) -> None:
    """Go on reading the log where the last process stopped."""
    parts.services[SearchableTexts].wake()
    parts.services[UserWords].wake()
    start_room_administration(parts)


def reserved_users(config: Config) -> dict[str, str]:
    """User IDs that nobody else can have, with the types of their accounts."""
    return {UserID.of(config.server_notices.localpart, config.server_name): USER_TYPE}


def build_notices(parts: Parts) -> None:
    """What the server itself tells its users."""
    config, services = parts.config.server_notices, parts.services
    services.add(
        ServerNotices(
            parts.db,
            services[RoomCreation],
            services[Membership],
            services[Sending],
            services[Accounts],
            services[Profiles],
            services[Tags],
            sender=UserID.of(config.localpart, parts.config.server_name),
            sender_name=config.display_name,
            room_name=config.room_name,
        )
    )
