"""The part of the composition root that joins this server to others."""

from __future__ import annotations

from federation.client.agent import Agent
from federation.client.directory import DirectoryCalls
from federation.client.events import EventsClient
from federation.client.keyring import Keyring
from federation.client.membership import MembershipCalls
from federation.client.pdus import PduChecker
from federation.client.queries import QueryCalls
from federation.client.requests import FederationClient
from federation.sender.live import LiveEdus
from federation.sender.sender import FederationSender
from federation.server.authenticate import SignatureAuthenticator
from federation.server.edus.registry import EduHandlers
from federation.server.edus.rooms import ReceiptEdus, TypingEdus
from federation.server.edus.users import PresenceEdus, ToDeviceEdus
from federation.server.names import Delegation
from federation.server.notary import KEY_QUERIES, Notary
from federation.server.own_keys import OwnKeys
from federation.server.transactions import Transactions
from homeserver.encrypting import watch_rooms
from homeserver.encryption.remote_devices import RemoteDevices
from homeserver.encryption.remote_to_device import RemoteToDevice
from homeserver.encryption.to_device import ToDevice
from homeserver.parts import Parts
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import Appender
from homeserver.rooms.backfill import Backfill
from homeserver.rooms.backlog import Backlog
from homeserver.rooms.backlog_size import BacklogSize
from homeserver.rooms.build import LocalSigner
from homeserver.rooms.completion import Completion
from homeserver.rooms.context import EventContext
from homeserver.rooms.fetch import Fetcher
from homeserver.rooms.handshake import Handshake
from homeserver.rooms.hierarchy import SpaceHierarchy
from homeserver.rooms.inbound import Inbound
from homeserver.rooms.join_answers import JoinAnswers
from homeserver.rooms.membership import Membership
from homeserver.rooms.missing import MissingEvents
from homeserver.rooms.published import PublishedRooms
from homeserver.rooms.receipts import Receipts
from homeserver.rooms.receive import Receiver
from homeserver.rooms.received_invites import ReceivedInvites
from homeserver.rooms.remote_aliases import RoomFinder
from homeserver.rooms.remote_invite import RemoteInvites
from homeserver.rooms.remote_join import RemoteJoins
from homeserver.rooms.remote_membership import RemoteMembership
from homeserver.rooms.remote_record import OutsideRecords
from homeserver.rooms.remote_rooms import RemoteRooms
from homeserver.rooms.served_history import ServedHistory
from homeserver.rooms.summary import RoomSummaries
from homeserver.rooms.third_party_invites import ThirdPartyInvites
from homeserver.rooms.timeline import Timeline
from homeserver.rooms.timestamp import EventsByTime
from homeserver.rooms.typing import Typing
from homeserver.users.hooks import UserHooks
from homeserver.users.presence import PresenceTracker
from homeserver.users.profiles import Profiles
from homeserver.users.remote_profiles import RemoteProfiles
from homeserver.web.limits import MemoryRateLimiter, address_key
from storage import device_updates
from storage.auth_chains import AuthChains
from storage.ephemeral import EphemeralStore
from storage.state import StateStore


def build_client(parts: Parts, agent: Agent) -> None:
    """Build what asks other servers: the first of all, because most services do."""
    config, reactor, add = parts.config, parts.reactor, parts.services.add
    server_name, keys = config.server_name, parts.keys
    parts.stops.append(agent.close)
    add(agent)
    client = add(FederationClient(server_name, keys[0], agent, reactor))
    notaries = config.federation.trusted_key_servers
    keyring = add(Keyring(parts.db, client, reactor, server_name, keys, notaries))
    parts.stops.append(keyring.stop)
    add(PduChecker(keyring, reactor, parts.metrics.checked))
    add(DirectoryCalls(client))
    add(MembershipCalls(client))


def build_federation(parts: Parts) -> SignatureAuthenticator:
    """Build what answers other servers; returns what checks their requests."""
    config, reactor, add = parts.config, parts.reactor, parts.services.add
    server_name, keys = config.server_name, parts.keys
    db, states, keyring = parts.db, parts.services[StateStore], parts.services[Keyring]
    own_keys = add(OwnKeys(server_name, keys, reactor))
    limiter = parts.services[MemoryRateLimiter]
    add(Notary(db, keyring, own_keys, reactor, limiter))
    add(Delegation.of(config.public_base_url))
    chains = add(AuthChains())
    add(ServedHistory(db, states, chains, server_name, reactor))
    aliases = parts.services[Aliases]
    finder = add(RoomFinder(db, aliases, parts.services[DirectoryCalls]))
    aliases.elsewhere = finder.room_of
    _build_membership(parts)
    _build_handshakes(parts, chains)
    _build_queries(parts)
    _build_edus(parts)
    watch_rooms(parts)
    _build_inbound(parts)
    _build_backfill(parts)
    _build_completion(parts)
    sender = _build_sender(parts)
    return SignatureAuthenticator(
        keyring,
        server_name,
        sender.heard_from,
        lambda address: limiter.take(KEY_QUERIES, address_key(address)),
    )


async def start_federation(parts: Parts) -> None:
    """Begin to send to other servers, and to work on what waits; after the feed and this
    process's row are there."""
    parts.services[Transactions].start()
    parts.services[Backlog].start()
    parts.services[BacklogSize].start()
    for part in (parts.services[FederationSender], parts.services[LiveEdus]):
        await part.start()
        parts.stops.append(part.stop)


def _build_sender(parts: Parts) -> FederationSender:
    db, reactor, services, metrics = parts.db, parts.reactor, parts.services, parts.metrics
    name, client, hooks = parts.config.server_name, services[FederationClient], services[UserHooks]
    outcomes = {
        arrived: metrics.federation_transactions.labels(outcome)
        for arrived, outcome in ((True, "arrived"), (False, "failed"))
    }
    sender = services.add(
        FederationSender(
            db,
            parts.feed,
            parts.bus,
            reactor,
            client,
            name,
            told=lambda arrived: outcomes[arrived].inc(),
            dropped=metrics.to_device_dropped.inc,
        )
    )
    metrics.gauge(
        "hearth_federation_pending_destinations",
        "Other servers that have not got everything.",
        lambda: sender.pending,
    )
    metrics.gauge(
        "hearth_federation_unreachable_destinations",
        "Other servers that did not take the last transaction.",
        lambda: sender.unreachable,
    )
    store: EphemeralStore = services.following(EphemeralStore)
    typing, presence = services[Typing], services[PresenceTracker]
    live = services.add(
        LiveEdus(db, parts.bus, reactor, name, store, typing, presence, sender.put_volatile)
    )
    services[Appender].on_written.append(live.events_written)

    def now_ms() -> int:
        return int(reactor.seconds() * 1000)

    hooks.device_changed.append(
        lambda txn, user_id, device_id: device_updates.record(txn, user_id, device_id, now_ms())
    )
    hooks.signing_keys_changed.append(
        lambda txn, user_id: device_updates.record_signing_keys(txn, user_id, now_ms())
    )
    return sender


def _build_queries(parts: Parts) -> None:
    """What asks other servers about their users and rooms."""
    db, reactor, services = parts.db, parts.reactor, parts.services
    queries = QueryCalls(services[FederationClient])
    remote = services.add(RemoteRooms(queries, reactor, parts.config.server_name))
    services[Profiles].remote = services.add(RemoteProfiles(queries, reactor))
    services[PublishedRooms].federate(remote, served=parts.config.federation.public_rooms)
    services[RoomSummaries].remote = remote
    services.add(SpaceHierarchy(db, remote, reactor))


def _build_edus(parts: Parts) -> None:
    """Who takes which EDUs; others add theirs to `EduHandlers`."""
    services, reactor = parts.services, parts.reactor
    edus = services.add(EduHandlers(reactor))
    to_devices = RemoteToDevice(parts.db, services[ToDevice], reactor, parts.config.server_name)
    edus.add("m.typing", TypingEdus(services[Typing]).receive, may_be_lost=True)
    edus.add("m.receipt", ReceiptEdus(services[Receipts]).receive, may_be_lost=True)
    services[Appender].on_written.append(services[Receipts].events_written)
    edus.add("m.presence", PresenceEdus(services[PresenceTracker]).receive, may_be_lost=True)
    edus.add("m.direct_to_device", ToDeviceEdus(services.add(to_devices)).receive)
    lists = services[RemoteDevices]
    edus.add_single("m.device_list_update", lists.updated)
    edus.add_single("m.signing_key_update", lists.signing_key_updated)


def _build_inbound(parts: Parts) -> None:
    """What takes the events of other servers, and gets those that are missing."""
    db, reactor, services, add = parts.db, parts.reactor, parts.services, parts.services.add
    server_name = parts.config.server_name
    receiver, checker = services[Receiver], services[PduChecker]
    metrics = parts.metrics
    calls = add(EventsClient(services[FederationClient], metrics.fetched))
    fetcher = add(Fetcher(db, calls, checker, receiver, reactor, server_name))
    missing = add(MissingEvents(db, fetcher, receiver))
    backlog = add(Backlog(db, parts.feed, missing, reactor))
    invites = services[ReceivedInvites]
    inbound = add(Inbound(db, checker, receiver, backlog, invites, reactor, server_name))
    inbound.joins = services[RemoteJoins]
    outcomes = {
        outcome: metrics.federation_received.labels(outcome)
        for outcome in ("new", "repeated", "refused", "failed")
    }
    edus = services[EduHandlers]
    transactions = add(
        Transactions(db, inbound, edus, reactor, lambda outcome: outcomes[outcome].inc())
    )
    size = add(BacklogSize(db, reactor))
    metrics.gauge(
        "hearth_federation_staged_events",
        "Events of other servers that wait to be added to their rooms, in all processes.",
        lambda: size.events,
    )
    metrics.gauge(
        "hearth_federation_staged_oldest_seconds",
        "How long the oldest of them has waited.",
        lambda: size.oldest_s,
    )
    parts.stops += [transactions.stop, backlog.stop, size.stop]


def _build_backfill(parts: Parts) -> None:
    """What gets the history that readers of this server lack."""
    db, reactor, services = parts.db, parts.reactor, parts.services
    fetcher, receiver = services[Fetcher], services[Receiver]
    name = parts.config.server_name
    backfill = Backfill(db, services[StateStore], fetcher, receiver, reactor, name)
    parts.stops.append(services.add(backfill).stop)
    services[Timeline].filler = services[EventContext].filler = backfill
    services[EventsByTime].others = backfill


def _build_completion(parts: Parts) -> None:
    """What gets the members of rooms that were entered without them."""
    services = parts.services
    appender, fetcher = services[Appender], services[Fetcher]
    completion = services.add(Completion(parts.db, appender, fetcher, parts.reactor))
    services[RemoteJoins].completion = completion
    parts.jobs[Completion.KIND] = completion.run
    parts.stops.append(completion.stop)


def _build_membership(parts: Parts) -> None:
    """Build what changes memberships through other servers."""
    db, reactor, services = parts.db, parts.reactor, parts.services
    signer = LocalSigner(parts.config.server_name, parts.keys[0])
    calls, checker = services[MembershipCalls], services[PduChecker]
    receiver, appender = services[Receiver], services[Appender]
    records = services.add(OutsideRecords())
    joins = services.add(RemoteJoins(db, calls, checker, receiver, signer, reactor))
    parts.stops.append(joins.stop)
    services[Membership].federate(
        RemoteMembership(db, joins, calls, checker, records, signer, reactor),
        RemoteInvites(db, appender, receiver, calls, services[Keyring], reactor),
    )


def _build_handshakes(parts: Parts, chains: AuthChains) -> None:
    """Build what lets other servers' users in and out, and takes their invites."""
    db, services, add = parts.db, parts.services, parts.services.add
    signer = LocalSigner(parts.config.server_name, parts.keys[0])
    appender, receiver, checker = services[Appender], services[Receiver], services[PduChecker]
    add(Handshake(db, appender, receiver, checker, signer))
    add(JoinAnswers(db, services[StateStore], chains))
    records = services[OutsideRecords]
    add(ReceivedInvites(db, receiver, checker, records, signer, parts.reactor))
    calls, keyring = services[MembershipCalls], services[Keyring]
    inviter = RemoteInvites(db, appender, receiver, calls, keyring, parts.reactor)
    add(ThirdPartyInvites(db, appender, calls, inviter, signer.server_name))
