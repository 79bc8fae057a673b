"""Telling people of what they miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.types import Duration, option


def _check_contact(contact: str | None) -> str | None:
    if contact is None or contact.startswith(("mailto:", "https://")):
        return None
    return "must start with mailto: or https://"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushMail:
    """E-mail about messages that somebody missed. It needs `email` and `public_base_url`."""

    enabled: bool = option(True, "Whether people may have themselves told by e-mail.")
    delay: Duration = option(
        Duration(600_000), "How long a message must have been unread before it is told by e-mail."
    )
    pause: Duration = option(
        Duration(3_600_000),
        "The least time between two e-mails to one address. It doubles with each that follows "
        "while nothing was read.",
    )
    longest_pause: Duration = option(Duration(86_400_000), "What the pause does not grow beyond.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Notifications to devices: by push gateways, to browsers directly, and by e-mail."""

    enabled: bool = option(True, "Whether anything is sent.")
    include_content: bool = option(
        True,
        "Whether gateways are told who wrote what where. Without it they get the IDs of events "
        "alone, whatever the client asks for.",
    )
    badge: Literal["messages", "rooms"] = option(
        "messages", "What the number on an app's icon counts: unread messages, or rooms with any."
    )
    allow_http: bool = option(
        False,
        "Whether gateways may be named by http:// and with any path, say for one on the same "
        "machine. Its address must be permitted in outgoing_http besides.",
    )
    at_once: int = option(
        32, "Pushes that one process has on their way at a time.", minimum=1, maximum=1000
    )
    at_once_per_gateway: int = option(
        8, "Of these, to one gateway or push service.", minimum=1, maximum=1000
    )
    timeout: Duration = option(
        Duration(60_000),
        "How long a gateway is waited for. Gateways try again themselves for half a minute: what "
        "is not waited for comes twice.",
    )
    give_up_after: Duration = option(
        Duration(86_400_000), "How long it is tried to tell of an event."
    )
    keep_log: Duration = option(
        Duration(7 * 86_400_000), "How long `hearth push log` knows what became of a push."
    )
    vapid_contact: str | None = option(
        None,
        "Whom push services of browsers write to if something is wrong (RFC 8292).",
        check=_check_contact,
        example='"mailto:admin@example.org"',
    )
    mail: PushMail = option(PushMail, "E-mail about missed messages.")
