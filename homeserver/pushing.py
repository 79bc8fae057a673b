"""Composition of what tells people who are not looking: devices, browsers, e-mail."""

from __future__ import annotations

from homeserver.parts import Parts
from homeserver.users.hooks import UserHooks
from homeserver.users.pushers import PusherRules, Pushers
from storage import push_log, pushers


def build_pushing(parts: Parts) -> None:
    """Pushers, and what serves them."""
    config, services, hooks = parts.config, parts.services, parts.services[UserHooks]
    settings = config.push
    allowed = PusherRules(settings.allow_http)
    services.add(Pushers(parts.db, parts.reactor, allowed))
    hooks.device_deleted.append(pushers.delete_of_device)
    hooks.deactivated.append(pushers.delete_all)
    hooks.erase.append(push_log.delete_all)
