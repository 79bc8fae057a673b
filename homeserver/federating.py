"""The part of the composition root that joins this server to others."""

from __future__ import annotations

from federation.client.agent import Agent
from federation.client.directory import DirectoryCalls
from federation.client.keyring import Keyring
from federation.client.membership import MembershipCalls
from federation.client.pdus import PduChecker
from federation.client.requests import FederationClient
from federation.server.authenticate import SignatureAuthenticator
from federation.server.names import Delegation
from federation.server.notary import Notary
from federation.server.own_keys import OwnKeys
from homeserver.parts import Parts
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.remote_aliases import RoomFinder
from homeserver.rooms.served_history import ServedHistory
from storage.auth_chains import AuthChains
from storage.state import StateStore


def build_client(parts: Parts, agent: Agent) -> None:
    """Build what asks other servers: the first of all, because most services do."""
    config, reactor, add = parts.config, parts.reactor, parts.services.add
    server_name, keys = config.server_name, parts.keys
    parts.stops.append(agent.close)
    client = add(FederationClient(server_name, keys[0], agent, reactor))
    notaries = config.federation.trusted_key_servers
    keyring = add(Keyring(parts.db, client, reactor, server_name, keys, notaries))
    parts.stops.append(keyring.stop)
    add(PduChecker(keyring, reactor))
    add(DirectoryCalls(client))
    add(MembershipCalls(client))


def build_federation(parts: Parts) -> SignatureAuthenticator:
    """Build what answers other servers; returns what checks their requests."""
    config, reactor, add = parts.config, parts.reactor, parts.services.add
    server_name, keys = config.server_name, parts.keys
    db, states, keyring = parts.db, parts.services[StateStore], parts.services[Keyring]
    own_keys = add(OwnKeys(server_name, keys, reactor))
    add(Notary(db, keyring, own_keys, reactor))
    add(Delegation.of(config.public_base_url))
    chains = add(AuthChains())
    add(ServedHistory(db, states, chains, server_name, reactor))
    add(RoomFinder(db, parts.services[Aliases], parts.services[DirectoryCalls]))
    return SignatureAuthenticator(keyring, server_name)
