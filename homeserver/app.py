"""The composition root: builds every object of a homeserver from its configuration.

It knows all parts and is known by none. A homeserver is an ordinary object: several live in one
process, as tests do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from config import Config
from federation.client.agent import Agent
from federation.client.errors import BadCaFile
from federation.client.policy import PolicyCalls
from federation.client.requests import FederationClient
from homeserver import startup
from homeserver.api.client.capabilities import CapabilitySettings
from homeserver.api.endpoints import ENDPOINTS
from homeserver.bridging import build_bridges, build_identities, start_bridges
from homeserver.core.errors import MatrixError, resource_limit_exceeded
from homeserver.core.ids import domain_of
from homeserver.discovering import build_discovery
from homeserver.encrypting import build_encryption
from homeserver.enrolling import (
    build_contacts,
    build_limiter,
    build_stages,
    build_validation,
    registration_rules,
)
from homeserver.experimental import build_experimental, start_experimental
from homeserver.federating import build_client, build_federation, start_federation
from homeserver.filing import body_limits, build_media, start_media
from homeserver.parts import Parts, Services
from homeserver.pushing import build_pushing, start_pushing
from homeserver.remembering import share_memory
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import Appender
from homeserver.rooms.build import LocalSigner
from homeserver.rooms.carry_over import CarryOver
from homeserver.rooms.context import EventContext
from homeserver.rooms.create import RoomCreation
from homeserver.rooms.delayed import DelayedEvents
from homeserver.rooms.departures import Departures
from homeserver.rooms.guests import GuestAccess
from homeserver.rooms.membership import Membership
from homeserver.rooms.mutual import MutualRooms
from homeserver.rooms.published import PublishedRooms
from homeserver.rooms.read import Reading
from homeserver.rooms.receipts import Receipts
from homeserver.rooms.receive import Receiver
from homeserver.rooms.related import RelatedEvents
from homeserver.rooms.related_redactions import RelatedRedactions
from homeserver.rooms.resets import ResetWatch
from homeserver.rooms.restricted import RestrictedJoins
from homeserver.rooms.send import Sending
from homeserver.rooms.shown_rooms import ShownRooms
from homeserver.rooms.summary import RoomSummaries
from homeserver.rooms.timeline import Timeline
from homeserver.rooms.timestamp import EventsByTime
from homeserver.rooms.typing import Typing
from homeserver.rooms.unread import Crowds
from homeserver.rooms.upgrade import RoomUpgrades
from homeserver.searching import build_notices, build_searching, reserved_users, start_searching
from homeserver.signing_on import build_sign_on
from homeserver.sync.engine import SyncEngine
from homeserver.sync.event_stream import EventStream
from homeserver.sync.filters import Filters
from homeserver.sync.notifier import Notifier
from homeserver.sync.old_sync import OldSync
from homeserver.syncing import build_sync
from homeserver.telemetry.metrics import Metrics
from homeserver.users import account_data
from homeserver.users.account_data import AccountData
from homeserver.users.accounts import Accounts
from homeserver.users.device_activity import DeviceActivity
from homeserver.users.device_pruning import DevicePruning
from homeserver.users.devices import Devices
from homeserver.users.hooks import UserHooks
from homeserver.users.housekeeping import UserHousekeeping
from homeserver.users.login import Login
from homeserver.users.moderation import AccountModeration
from homeserver.users.openid import OpenId
from homeserver.users.passwords import Passwords
from homeserver.users.presence import PresenceTracker
from homeserver.users.profiles import Profiles
from homeserver.users.push_rules import PushRules
from homeserver.users.registration import Registration
from homeserver.users.registration_tokens import RegistrationTokens
from homeserver.users.sessions import Sessions
from homeserver.users.tags import Tags
from homeserver.users.turn import Turn
from homeserver.users.uia import InteractiveAuth
from homeserver.web.router import Router
from homeserver.web.turns import Turns
from storage import delayed_events, erasures, push_rules, sliding_positions
from storage.bus import Bus, MemoryBus
from storage.database import Database, DatabaseUnavailable, open_database
from storage.ephemeral import EphemeralStore, MemoryEphemeral
from storage.feed import Feed
from storage.jobs import JobRunner
from storage.processes import Heartbeat
from storage.rendezvous import MemoryRendezvous, RendezvousStore
from storage.state import StateStore
from storage.users import list_users


@dataclass(slots=True)
class Homeserver:
    """A running homeserver, without its listeners (`homeserver.server` opens those)."""

    config: Config
    reactor: Any
    db: Database
    bus: Bus
    feed: Feed
    metrics: Metrics
    services: Services
    router: Router
    _stops: list[Callable[[], Awaitable[object] | None]] = field(default_factory=list)

    def on_stop(self, stop: Callable[[], Awaitable[object] | None]) -> None:
        """Have `stop` called when the homeserver stops, the last registered first."""
        self._stops.append(stop)

    async def stop(self) -> None:
        """Finish what was accepted, release what is held, close the database."""
        while self._stops:
            waiting = self._stops.pop()()
            if waiting is not None:
                await waiting


async def build(config: Config, reactor: Any, log: Any, *, serving: bool = True) -> Homeserver:
    """Build a homeserver.

    With `serving` False it does nothing by itself, for commands beside a server: it is no process
    of the server, sends nothing to others, and takes neither jobs nor what waits. What it writes
    a server finds.

    Raises:
        CannotStart: the data directory, the signing key or a CA file cannot be used, or the
            database is another server's.
        DatabaseUnavailable, UnusableDatabase: see `storage.database.open_database`.
    """
    startup.prepare_data_directory(config)
    keys = startup.load_signing_keys(config)
    agent = _federation_agent(config, reactor)
    metrics = Metrics()
    bus = await _bus(config, reactor)
    db = await open_database(
        startup.database_url(config),
        reactor=reactor,
        bus=bus,
        connections=config.database.connections,
        wait_for=config.database.start_timeout / 1000,
        observe=lambda timing: metrics.transaction(timing.name, timing.kind, timing.took),
    )
    metrics.point_queries(db.queries.direct, db.queries.thread)
    try:
        await _check_name(config, db)
    except startup.CannotStart:
        await db.close()
        await bus.close()
        raise
    feed = Feed(db, bus, reactor)
    parts = Parts(config, reactor, db, bus, feed, metrics, keys, Services(), [])
    parts.stops += [bus.close, db.close, feed.stop]
    ephemeral = parts.services.add_as(EphemeralStore, _ephemeral(config, reactor))
    parts.stops.append(ephemeral.close)
    build_client(parts, agent)
    _build_users(parts)
    build_encryption(parts)
    _build_rooms(parts)
    await _build_user_data(parts, ephemeral)
    _build_reading(parts)
    _build_sync(parts)
    build_pushing(parts)
    federation_authenticator = build_federation(parts)
    entrance = build_bridges(parts)
    build_experimental(parts)
    build_media(parts)
    share_memory(parts)
    router = Router(
        ENDPOINTS,
        parts.services.as_mapping(),
        entrance.authenticator,
        clock=reactor,
        log=log,
        federation_authenticator=federation_authenticator,
        rate_limiter=entrance.limiter,
        query_tokens=entrance.query_tokens,
        # What other servers may ask that costs much: a few at a time, in all and of each.
        turns={"federation_heavy": Turns(each=4, total=16, waiting=50)},
        observer=metrics,
        refuse_writing=_refusal(config),
        body_limits=body_limits(config),
        unavailable=(DatabaseUnavailable,),
    )
    homeserver = Homeserver(
        config, reactor, db, bus, feed, metrics, parts.services, router, parts.stops
    )
    await feed.start()
    if serving:
        await _begin(parts, homeserver)
    return homeserver


async def _begin(parts: Parts, homeserver: Homeserver) -> None:
    """Announce this process, and begin with what it does without being asked."""
    db, feed, reactor = parts.db, parts.feed, parts.reactor
    heartbeat = Heartbeat(
        db,
        reactor,
        db.process_token,
        lambda process_id: feed.missed(),
        alone=parts.config.database.is_sqlite,
    )
    await heartbeat.start()
    homeserver.on_stop(heartbeat.stop)
    parts.services[UserHousekeeping].start()
    start_searching(parts)
    start_media(parts)
    await start_federation(parts)
    await start_bridges(parts)
    await start_pushing(parts)
    start_experimental(parts)
    runner = JobRunner(db, feed, reactor, db.process_token, parts.jobs)
    runner.start()
    homeserver.on_stop(runner.stop)


async def _check_name(config: Config, db: Database) -> None:
    """Raise CannotStart if the accounts in the database are of another server name."""
    for user in await db.read(list_users, "", 1):
        name = domain_of(user.user_id)
        if name != config.server_name:
            raise startup.CannotStart(
                f"The database holds the accounts of {name}, but server_name is "
                f"{config.server_name}. A server cannot change its name: set server_name to "
                f"{name}, or give this server a database of its own."
            )


def _refusal(config: Config) -> Callable[[], MatrixError] | None:
    """The answer to writing requests while the server takes nothing new."""
    if not config.read_only.enabled:
        return None
    contact = config.read_only.admin_contact
    return lambda: resource_limit_exceeded(contact, "This server takes nothing new at present.")


def _ms(duration: int | None) -> int | None:
    """A duration of the configuration as a plain number, which can be part of an answer."""
    return None if duration is None else int(duration)


async def _bus(config: Config, reactor: Any) -> Bus:
    if config.redis is None:
        return MemoryBus(reactor)
    from storage.redis_bus import RedisBus

    return await RedisBus.connect(config.redis.url, reactor)


def _ephemeral(config: Config, reactor: Any) -> EphemeralStore:
    if config.redis is None:
        return MemoryEphemeral(reactor)
    from storage.redis_ephemeral import RedisEphemeral

    return RedisEphemeral(config.redis.url, reactor)


def _rendezvous(config: Config, reactor: Any) -> RendezvousStore:
    if config.redis is None:
        return MemoryRendezvous(reactor)
    from storage.redis_rendezvous import RedisRendezvous

    return RedisRendezvous(config.redis.url, reactor)


def _build_users(parts: Parts) -> None:
    config, reactor, db, add = parts.config, parts.reactor, parts.db, parts.services.add
    add(db)
    limiter = build_limiter(parts)
    hooks = add(UserHooks())
    activity = add(DeviceActivity(db, reactor))
    passwords = add(
        Passwords(
            reactor,
            cost=config.passwords.cost,
            minimum_length=config.passwords.minimum_length,
        )
    )
    sessions = add(
        Sessions(
            db,
            reactor,
            hooks,
            activity,
            access_lifetime_ms=int(config.sessions.access_token_lifetime),
            refresh_lifetime_ms=_ms(config.sessions.refresh_token_lifetime),
            unrefreshed_lifetime_ms=_ms(config.sessions.unrefreshed_token_lifetime),
            max_devices=config.sessions.devices_per_user,
        )
    )
    reserved = reserved_users(config)
    accounts = add(Accounts(db, reactor, hooks, passwords, sessions, config.server_name, reserved))
    login = add(
        Login(
            db,
            reactor,
            passwords,
            config.server_name,
            limit_attempts=lambda key: limiter.spend("login", key),
            token_lifetime_ms=int(config.sessions.login_token_lifetime),
        )
    )
    validation = build_validation(parts, limiter)
    uia = add(InteractiveAuth(db, reactor, build_stages(parts, login)))
    rules = registration_rules(config)
    add(Registration(db, reactor, rules, accounts, passwords, sessions, uia, validation))
    build_contacts(parts)
    add(RegistrationTokens(db, reactor))
    add(Devices(db, hooks, sessions, activity))
    add(Profiles(db, hooks, config.server_name))
    add(OpenId(db, reactor))
    add(AccountModeration(db, config.server_name))
    turn = config.turn
    add(
        Turn(
            reactor,
            uris=turn.uris,
            shared_secret=turn.shared_secret,
            lifetime_ms=int(turn.lifetime),
        )
    )
    has_email = config.email is not None
    add(
        CapabilitySettings(
            config.default_room_version,
            change_contacts=has_email,
            longest_delay_ms=int(config.delayed_events.longest_delay),
            delayed_events=config.delayed_events.per_user,
        )
    )
    build_identities(parts)
    build_sign_on(parts, _refusal(config))
    build_discovery(parts)
    boxes = parts.services.add_as(RendezvousStore, _rendezvous(config, reactor))
    parts.stops.append(boxes.close)
    housekeeping = add(UserHousekeeping(db, reactor))
    unused_after = _ms(config.sessions.unused_devices_after)
    pruning = add(DevicePruning(db, reactor, sessions, unused_after))
    activity.start()
    pruning.start()
    parts.stops += [passwords.close, activity.stop, housekeeping.stop, pruning.stop]


def _build_rooms(parts: Parts) -> None:
    add = parts.services.add
    states = add(StateStore())
    signer = LocalSigner(parts.config.server_name, parts.keys[0])
    crowds = Crowds()
    parts.feed.on_invalidate(push_rules.RULES, crowds.rules_changed, crowds.clear)
    parts.feed.on_invalidate(push_rules.EXCEPTIONAL, lambda _: crowds.clear(), crowds.clear)
    appender = add(
        Appender(
            parts.db,
            signer,
            parts.reactor,
            states,
            crowds,
            observe=parts.metrics.committed,
        )
    )
    parts.stops.append(appender.drained)
    watch = ResetWatch(parts.metrics.state_resets)
    received = parts.metrics.received
    receiver = add(Receiver(parts.db, appender, parts.reactor, [watch.noticed], received))
    appender.policies = PolicyCalls(parts.services[FederationClient])
    appender.add_signed = receiver.add_signed
    config, db = parts.config, parts.db
    hooks = parts.services[UserHooks]
    restricted = RestrictedJoins(db, config.server_name)
    members = add(Membership(db, appender, restricted, config.server_name))
    departures = Departures(members, parts.reactor)
    hooks.deactivated.append(departures.enqueue)
    parts.jobs[Departures.KIND] = departures.run
    hooks.profile_changed.append(members.profile_changed)
    aliases = add(Aliases(db, appender, config.server_name, config.room_aliases.require_membership))
    sending = add(Sending(db, appender, members, aliases))
    hooks.deactivated.append(delayed_events.delete_all)
    delayed = add(
        DelayedEvents(
            db,
            parts.feed,
            parts.reactor,
            sending,
            max_delay_ms=int(config.delayed_events.longest_delay),
            max_per_user=config.delayed_events.per_user,
        )
    )
    parts.stops.append(delayed.stop)
    related = add(RelatedRedactions(db, parts.reactor, sending))
    parts.jobs[RelatedRedactions.KIND] = related.run
    add(
        RoomCreation(
            db,
            appender,
            members,
            config.server_name,
            config.default_room_version,
            config.public_rooms.publication,
        )
    )
    public = config.public_rooms
    add(PublishedRooms(db, config.server_name, public.publication, public.without_auth))
    add(RoomSummaries(db))
    add(RoomUpgrades(db, appender))
    guests = add(GuestAccess(db, members))
    appender.on_written.append(guests.written)
    parts.stops.append(guests.drained)
    carry_over = add(CarryOver(db, config.server_name))
    appender.on_written.append(carry_over.written)
    parts.stops.append(carry_over.drained)


async def _build_user_data(parts: Parts, ephemeral: EphemeralStore) -> None:
    add, db, reactor, feed = parts.services.add, parts.db, parts.reactor, parts.feed
    add(AccountData(db))
    add(Tags(db))
    build_notices(parts)
    add(PushRules(db))
    add(Receipts(db, reactor))
    enabled, server_name = parts.config.presence.enabled, parts.config.server_name
    presence = add(
        PresenceTracker(
            db,
            ephemeral,
            feed,
            parts.bus,
            reactor,
            server_name,
            enabled=enabled,
            federated=parts.config.presence.federated,
        )
    )
    typing = add(Typing(db, ephemeral, feed, reactor))
    written = parts.services[Appender].on_written
    written += [typing.events_written, presence.events_written]
    parts.services[UserHooks].erase.append(account_data.erase)
    parts.services[UserHooks].device_deleted.append(account_data.device_deleted)
    parts.stops += [presence.stop, typing.stop]
    await presence.start()
    typing.start()


def _build_reading(parts: Parts) -> None:
    add, db, reactor = parts.services.add, parts.db, parts.reactor
    states = parts.services[StateStore]
    add(Reading(db, states, reactor, add(ShownRooms(parts.metrics.rooms_shown))))
    add(Timeline(db, states, reactor))
    add(EventContext(db, states, reactor))
    add(EventsByTime(db, states))
    add(RelatedEvents(db, states, reactor))
    add(MutualRooms(db, reactor))
    build_searching(parts)
    parts.services[UserHooks].erase.append(erasures.record)


def _build_sync(parts: Parts) -> None:
    add, services = parts.services.add, parts.services
    notifier = add(Notifier(parts.db, parts.feed, parts.bus, parts.reactor))
    add(SyncEngine(services[StateStore], services[ShownRooms]))
    ephemeral: EphemeralStore = services.following(EphemeralStore)
    add(Filters(parts.db))
    presence, states = services[PresenceTracker], services[StateStore]
    build_sync(parts)
    services[UserHooks].device_deleted.append(sliding_positions.delete_device)
    add(OldSync(parts.db, states, ephemeral, presence, services[Reading], parts.reactor))
    add(EventStream(parts.db, states, notifier, ephemeral, presence, parts.reactor))
    parts.stops.append(notifier.stop)


def _federation_agent(config: Config, reactor: Any) -> Agent:
    try:
        return Agent(reactor, config.federation)
    except BadCaFile as error:
        raise startup.CannotStart(f"federation.ca_files: {error}.") from None
