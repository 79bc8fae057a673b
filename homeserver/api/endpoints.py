"""All endpoints that this server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from federation.server import device_queries as federation_device_queries
from federation.server import directory as federation_directory
from federation.server import events as federation_events
from federation.server import invites as federation_invites
from federation.server import joins as federation_joins
from federation.server import keys as federation_keys
from federation.server import knocks as federation_knocks
from federation.server import leaves as federation_leaves
from federation.server import media as federation_media
from federation.server import names as federation_names
from federation.server import openid as federation_openid
from federation.server import queries as federation_queries
from federation.server import third_party as federation_third_party
from federation.server import transactions as federation_transactions
from federation.server import unstable as federation_unstable
from homeserver.api.admin import devices as admin_devices
from homeserver.api.admin import federation as admin_federation
from homeserver.api.admin import media as admin_media
from homeserver.api.admin import notices as admin_notices
from homeserver.api.admin import pushers as admin_pushers
from homeserver.api.admin import registration_tokens as admin_registration_tokens
from homeserver.api.admin import reports as admin_reports
from homeserver.api.admin import room_deletion as admin_room_deletion
from homeserver.api.admin import room_history as admin_room_history
from homeserver.api.admin import room_reading as admin_room_reading
from homeserver.api.admin import rooms as admin_rooms
from homeserver.api.admin import server as admin_server
from homeserver.api.admin import user_controls as admin_user_controls
from homeserver.api.admin import user_data as admin_user_data
from homeserver.api.admin import users as admin_users
from homeserver.api.client import (
    account,
    account_data,
    account_moderation,
    account_status,
    admin_register,
    aliases,
    appservice_ping,
    auth_pages,
    capabilities,
    contacts,
    context,
    dehydrated_device,
    delayed_events,
    devices,
    filters,
    hierarchy,
    keys,
    login,
    media,
    media_downloads,
    membership,
    notifications,
    old_sync,
    openid,
    presence,
    previews,
    profiles,
    published_rooms,
    push_rules,
    pushers,
    reading,
    receipts,
    registration,
    relations,
    rendezvous,
    reports,
    retention,
    room_creation,
    room_keys,
    room_summary,
    rtc,
    search,
    sending,
    sliding_sync,
    sso,
    sync,
    tags,
    third_party_lookup,
    thread_subscriptions,
    timestamp,
    to_device,
    typing,
    unsubscribe,
    upgrade,
    user_directory,
    versions,
    voip,
    web_push,
    well_known,
    whois,
)

_MODULES = (
    account,
    account_data,
    account_moderation,
    account_status,
    admin_register,
    admin_devices,
    admin_federation,
    admin_media,
    admin_notices,
    admin_pushers,
    admin_registration_tokens,
    admin_reports,
    admin_server,
    admin_user_controls,
    admin_user_data,
    admin_users,
    admin_room_history,
    admin_rooms,
    admin_room_reading,
    admin_room_deletion,
    aliases,
    appservice_ping,
    auth_pages,
    capabilities,
    contacts,
    context,
    dehydrated_device,
    delayed_events,
    devices,
    federation_device_queries,
    federation_directory,
    federation_events,
    federation_invites,
    federation_joins,
    federation_keys,
    federation_knocks,
    federation_leaves,
    federation_media,
    federation_names,
    federation_openid,
    federation_queries,
    federation_third_party,
    federation_transactions,
    federation_unstable,
    filters,
    hierarchy,
    keys,
    login,
    media,
    media_downloads,
    membership,
    notifications,
    old_sync,
    openid,
    presence,
    previews,
    profiles,
    published_rooms,
    push_rules,
    pushers,
    reading,
    receipts,
    registration,
    relations,
    rendezvous,
    reports,
    retention,
    room_creation,
    room_keys,
    room_summary,
    rtc,
    search,
    sending,
    sliding_sync,
    sso,
    sync,
    tags,
    third_party_lookup,
    thread_subscriptions,
    timestamp,
    to_device,
    typing,
    unsubscribe,
    upgrade,
    user_directory,
    versions,
    voip,
    web_push,
    well_known,
    whois,
)

ENDPOINTS: list[Callable[..., Awaitable[object]]] = [
    function for module in _MODULES for function in module.ENDPOINTS
]
