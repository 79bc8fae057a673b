"""Clients ask for the keys of users, of this server and of others (client-server API,
`POST /keys/query`).

Users of other servers are answered from their device lists as far as these are kept (see
`remote_devices`); for the rest their servers are asked, all at the same time. A list that was
asked for is kept from then on, if its user is in a room with a user of this server.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from federation.client.requests import FederationClient
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.encryption import remote_answers, remote_devices, servers
from homeserver.encryption.key_reads import FoundKeys, add_own_signatures, query_local_keys
from homeserver.encryption.remote_answers import DeviceList
from storage import clock
from storage import remote_devices as rows
from storage.database import Database
from storage.remote_devices import RemoteDevice, RemoteList
from storage.transaction import Transaction

Wanted = Mapping[str, Sequence[str]]
"""User IDs to device IDs; none of them means all devices."""


class _Known(NamedTuple):
    """What is kept of remote users, and what is to be known to keep more."""

    found: FoundKeys
    missing: dict[str, Sequence[str]]
    heard: dict[str, int]
    shared: set[str]
    awaited: set[str]
    """Those of whose lists it is known already that somebody wants them."""
    now: int


class KeyQueries:
    """Finds keys of devices and of users."""

    def __init__(
        self, db: Database, client: FederationClient, clock: IReactorTime, server_name: str
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._server_name = server_name

    async def query(self, viewer: str, wanted: Wanted, timeout_ms: int | None = None) -> FoundKeys:
        """The keys that a user may see. `timeout_ms`: how long to wait for other servers."""
        end = f":{self._server_name}"
        local = {user_id: ids for user_id, ids in wanted.items() if user_id.endswith(end)}
        found = FoundKeys()
        if local:
            found = await query_local_keys(self._db, local, viewer)
        remote = {user_id: ids for user_id, ids in wanted.items() if user_id not in local}
        if remote:
            others = await self._remote(remote, timeout_ms)
            await self._db.read(add_own_signatures, viewer, others.master_keys)
            found.update(others)
        return found

    async def local(self, wanted: Wanted) -> FoundKeys:
        """Keys of this server's users as other servers may see them."""
        return await query_local_keys(self._db, wanted, None)

    async def _remote(self, wanted: Wanted, timeout_ms: int | None) -> FoundKeys:
        known = await self._db.read(_known, wanted)
        if not known.missing:
            return known.found

        async def ask(server_name: str, users: Wanted, timeout_s: float) -> FoundKeys:
            # All devices of those whose lists are kept from now on.
            asked = {user: [] if user in known.shared else list(ids) for user, ids in users.items()}
            answer = await self._client.post_json(
                server_name,
                "/_matrix/federation/v1/user/keys/query",
                {"device_keys": asked},
                timeout_s=timeout_s,
                max_bytes=servers.MAX_ANSWER_BYTES,
            )
            answered = remote_answers.parse_query(answer, asked)
            kept = [user for user in users if user in known.shared & answered.device_keys.keys()]
            if kept:
                await self._db.write(_keep, kept, answered, known)
            return _only(answered, users)

        answers, failures = await servers.ask_all(
            servers.by_server(known.missing), ask, timeout_ms, self._clock
        )
        for answered in answers.values():
            known.found.update(answered)
        known.found.failures |= failures
        await self._note_failures(known, failures.keys())
        return known.found

    async def _note_failures(self, known: _Known, server_names: Collection[str]) -> None:
        """Have the lists fetched that could not be had, as far as they are to be kept."""
        wanted = {
            user_id
            for user_id in known.missing
            if user_id in known.shared - known.awaited and UserID(user_id).domain in server_names
        }
        if wanted:
            now_ms = int(self._clock.seconds() * 1000)
            await self._db.write(remote_devices.not_answered, wanted, now_ms)


def _known(txn: Transaction, wanted: Wanted) -> _Known:
    usable = rows.usable_lists(txn, wanted.keys())
    devices = rows.get_devices(txn, usable.keys())
    found = FoundKeys()
    for user_id, known in usable.items():
        _add_list(found, known, devices[user_id].values(), wanted[user_id])
    missing = {user_id: ids for user_id, ids in wanted.items() if user_id not in usable}
    lists = rows.get_lists(txn, missing.keys())
    heard = {user_id: row.heard for user_id, row in lists.items()}
    awaited = {
        user_id for user_id, row in lists.items() if row.stale and row.fetched_pos != rows.UNASKED
    }
    shared = rows.shared(txn, missing.keys())
    return _Known(found, missing, heard, shared, awaited, clock.position(txn))


def _add_list(
    found: FoundKeys, known: RemoteList, devices: Collection[RemoteDevice], wanted: Sequence[str]
) -> None:
    user_id = known.user_id
    found.device_keys[user_id] = {}
    for device in devices:
        if device.keys is None or (wanted and device.device_id not in wanted):
            continue
        keys = json.loads(device.keys)
        named = device.display_name is not None
        keys["unsigned"] = {"device_display_name": device.display_name} if named else {}
        found.device_keys[user_id][device.device_id] = keys
    if known.master_key is not None:
        found.master_keys[user_id] = json.loads(known.master_key)
    if known.self_signing_key is not None:
        found.self_signing_keys[user_id] = json.loads(known.self_signing_key)


def _keep(txn: Transaction, user_ids: Sequence[str], answered: FoundKeys, known: _Known) -> None:
    """Keep the lists of users as their server answered."""
    for user_id in user_ids:
        devices = {}
        for device_id, keys in answered.device_keys[user_id].items():
            name = keys["unsigned"].get("device_display_name")
            signed = {field: value for field, value in keys.items() if field != "unsigned"}
            devices[device_id] = RemoteDevice(device_id, name, remote_answers.text(signed))
        # Without a place in the stream of changes: the next change fetches the list.
        found = DeviceList(
            None,
            devices,
            remote_answers.text(answered.master_keys.get(user_id)),
            remote_answers.text(answered.self_signing_keys.get(user_id)),
        )
        heard = known.heard.get(user_id, 0)
        if not remote_devices.store(txn, user_id, found, heard, known.now):
            remote_devices.answered_otherwise(txn, user_id)


def _only(answered: FoundKeys, wanted: Wanted) -> FoundKeys:
    """An answer without devices that the client did not ask for."""
    for user_id, device_ids in wanted.items():
        devices = answered.device_keys.get(user_id)
        if devices is not None and device_ids:
            chosen: dict[str, JsonObject] = {
                device_id: keys for device_id, keys in devices.items() if device_id in device_ids
            }
            answered.device_keys[user_id] = chosen
    return answered
