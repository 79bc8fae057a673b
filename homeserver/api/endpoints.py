"""All endpoints that this server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from homeserver.api.client import (
    account,
    admin_register,
    aliases,
    capabilities,
    context,
    devices,
    filters,
    login,
    membership,
    openid,
    profiles,
    published_rooms,
    reading,
    registration,
    relations,
    room_creation,
    room_summary,
    sending,
    sync,
    timestamp,
    to_device,
    upgrade,
    versions,
    voip,
    well_known,
)

_MODULES = (
    account,
    admin_register,
    aliases,
    capabilities,
    context,
    devices,
    filters,
    login,
    membership,
    openid,
    profiles,
    published_rooms,
    reading,
    registration,
    relations,
    room_creation,
    room_summary,
    sending,
    sync,
    timestamp,
    to_device,
    upgrade,
    versions,
    voip,
    well_known,
)

ENDPOINTS: list[Callable[..., Awaitable[object]]] = [
    function for module in _MODULES for function in module.ENDPOINTS
]
