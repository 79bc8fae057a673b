"""All endpoints that this server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from homeserver.api.client import (
    account,
    admin_register,
    aliases,
    capabilities,
    devices,
    login,
    membership,
    openid,
    profiles,
    registration,
    room_creation,
    sending,
    versions,
    voip,
    well_known,
)

_MODULES = (
    account,
    admin_register,
    aliases,
    capabilities,
    devices,
    login,
    membership,
    openid,
    profiles,
    registration,
    room_creation,
    sending,
    versions,
    voip,
    well_known,
)

ENDPOINTS: list[Callable[..., Awaitable[object]]] = [
    function for module in _MODULES for function in module.ENDPOINTS
]
