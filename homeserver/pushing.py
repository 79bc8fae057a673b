"""Composition of what tells people who are not looking: devices, browsers, e-mail."""

from __future__ import annotations

from config import Config
from homeserver.core import pushers as kinds
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.outbound.mail import Mailer
from homeserver.parts import Parts
from homeserver.push.delivery import DeliverySettings, Digest, PushDelivery
from homeserver.push.digests import EmailDigests
from homeserver.push.gateways import Gateways
from homeserver.push.reader import PushReader
from homeserver.push.web_push import VapidKey, WebPush, is_public_key
from homeserver.rooms.badges import Badges
from homeserver.rooms.notifications import Notifications
from homeserver.users.hooks import UserHooks
from homeserver.users.pushers import ACTIVATION, PusherRules, Pushers
from storage import push_log, pushers
from storage.state import StateStore


def build_pushing(parts: Parts) -> None:
    """Pushers, and what serves them."""
    config, services, hooks = parts.config, parts.services, parts.services[UserHooks]
    settings, reactor = config.push, parts.reactor
    services.add(
        Pushers(
            parts.db,
            reactor,
            PusherRules(settings.allow_http, email=sends_mail(config), valid_key=is_public_key),
        )
    )
    hooks.device_deleted.append(pushers.delete_of_device)
    hooks.deactivated.append(pushers.delete_all)
    hooks.erase.append(push_log.delete_all)
    services.add(Notifications(parts.db, services[StateStore], reactor))
    badges = services.add(Badges(by_room=settings.badge == "rooms"))
    http = OutgoingHttpClient(
        reactor, config.outgoing_http, keep_alive=True, allow_http=settings.allow_http
    )
    parts.stops.append(http.close)
    timeout = settings.timeout / 1000
    key = services.add(VapidKey(parts.db, reactor, _contact(config), offered=settings.enabled))
    browsers = WebPush(http, key, parts.db, reactor, timeout)
    parts.jobs[ACTIVATION] = browsers.activate
    delivery = services.add(
        PushDelivery(
            parts.db,
            parts.feed,
            reactor,
            services[StateStore],
            badges,
            {kinds.HTTP: Gateways(http, timeout), kinds.WEBPUSH: browsers},
            _digests(parts),
            DeliverySettings(
                settings.at_once,
                settings.at_once_per_gateway,
                int(settings.give_up_after),
                int(settings.keep_log),
                settings.include_content,
            ),
            parts.metrics.pushed,
        )
    )
    parts.metrics.gauge(
        "hearth_pushes_under_way",
        "Pushers that this process is serving.",
        lambda: float(delivery.under_way),
    )
    reader = services.add(PushReader(parts.db, reactor, int(settings.mail.delay)))
    parts.stops.append(reader.stop)


def sends_mail(config: Config) -> bool:
    """Whether people may have themselves told by e-mail."""
    return bool(
        config.email is not None
        and config.public_base_url
        and config.push.enabled
        and config.push.mail.enabled
    )


def _digests(parts: Parts) -> dict[str, Digest]:
    config, services = parts.config, parts.services
    if not sends_mail(config):
        return {}
    mail = config.push.mail
    digests = EmailDigests(
        services[Mailer],
        services[StateStore],
        parts.reactor,
        config.public_base_url or "",
        int(mail.pause),
        int(mail.longest_pause),
    )
    return {kinds.EMAIL: digests}


def _contact(config: Config) -> str:
    """Whom push services write to."""
    base = config.public_base_url or ""
    found = base if base.startswith("https://") else f"https://{config.server_name}"
    return config.push.vapid_contact or found.rstrip("/")


async def start_pushing(parts: Parts) -> None:
    """Go on telling what was written while no process ran."""
    reader = parts.services[PushReader]
    if parts.config.push.enabled:
        await reader.start()
        delivery = parts.services[PushDelivery]
        delivery.start()
        # Stopped before this process is signed off, with which its claims end.
        parts.stops.append(delivery.stop)
    else:
        # Switched on again, it does not begin with what is long known.
        await reader.skip()
        parts.stops.append(reader.skip)
