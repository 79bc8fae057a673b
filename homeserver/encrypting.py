"""The part of the composition root that keeps keys of end-to-end encryption."""

from __future__ import annotations

from federation.client.requests import FederationClient
from homeserver.encryption import cross_signing as cross_signing_service
from homeserver.encryption import uploads
from homeserver.encryption.claims import KeyClaims
from homeserver.encryption.cross_signing import CrossSigning
from homeserver.encryption.dehydrated_devices import DehydratedDevices
from homeserver.encryption.device_lists import device_changed, list_changed
from homeserver.encryption.device_reads import DeviceReads
from homeserver.encryption.key_backups import KeyBackups
from homeserver.encryption.new_neighbours import NewNeighbours
from homeserver.encryption.queries import KeyQueries
from homeserver.encryption.remote_devices import RemoteDevices
from homeserver.encryption.signatures import KeySignatures
from homeserver.encryption.to_device import ToDevice
from homeserver.encryption.uploads import KeyUploads
from homeserver.parts import Parts
from homeserver.rooms.append import Appender
from homeserver.sync.device_list_changes import DeviceListChanges
from homeserver.users.hooks import UserHooks
from homeserver.users.sessions import Sessions
from storage import cross_signing, dehydrated_devices, key_backups, to_device


def build_encryption(parts: Parts) -> None:
    """Build what devices need of a server: messages, keys, lists of each other."""
    db, reactor, add = parts.db, parts.reactor, parts.services.add
    server_name = parts.config.server_name
    hooks, client = parts.services[UserHooks], parts.services[FederationClient]
    add(ToDevice(db, reactor, server_name))
    key_uploads = add(KeyUploads(db, hooks))
    add(DehydratedDevices(db, reactor, parts.services[Sessions], key_uploads, hooks))
    add(CrossSigning(db, parts.reactor, hooks))
    add(KeySignatures(db, hooks))
    add(KeyQueries(db, client, reactor, server_name))
    add(KeyClaims(db, client, reactor, server_name))
    add(DeviceReads(db, server_name))
    add(KeyBackups(db))
    add(DeviceListChanges(db))
    lists = add(RemoteDevices(db, client, reactor))
    parts.jobs[RemoteDevices.KIND] = lists.run
    parts.stops.append(lists.stop)
    hooks.device_id_reserved.append(cross_signing_service.is_reserved)
    hooks.device_deleted += [
        to_device.delete_device,
        uploads.device_deleted,
        dehydrated_devices.delete_device,
    ]
    hooks.device_changed.append(device_changed)
    hooks.signing_keys_changed.append(list_changed)
    hooks.deactivated += [cross_signing.delete_all, key_backups.delete_all]


def watch_rooms(parts: Parts) -> None:
    """Have devices told to the servers of rooms that their users enter."""
    watcher = NewNeighbours(parts.db, parts.reactor, parts.config.server_name)
    parts.services[Appender].on_written.append(watcher.written)
    parts.stops.append(watcher.drained)
