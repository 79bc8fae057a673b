"""How often one user or address may ask for something."""

from __future__ import annotations

from dataclasses import dataclass

from config.types import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A token bucket."""

    per_second: float = option(doc="Requests a second in the long run.", minimum=0)
    burst: int = option(doc="Requests at once.", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Limits for each user, for each server, or for each address where neither is known yet."""

    enabled: bool = option(True, "Whether there are limits at all.")
    exempt_users: tuple[str, ...] = option(
        (), 'Users without limits, by their whole ID: "@bot:example.org".'
    )
    read: Rate = option(Rate(per_second=50, burst=200), "Requests that change nothing.")
    write: Rate = option(Rate(per_second=10, burst=100), "Requests that change something.")
    message: Rate = option(Rate(per_second=5, burst=50), "Events sent to rooms.")
    join: Rate = option(Rate(per_second=0.5, burst=20), "Joining rooms.")
    invite: Rate = option(Rate(per_second=0.5, burst=20), "Inviting people.")
    create_room: Rate = option(Rate(per_second=0.1, burst=10), "Creating rooms.")
    login: Rate = option(Rate(per_second=0.2, burst=10), "Logging in and proving who one is.")
    login_token: Rate = option(
        Rate(per_second=0.0167, burst=3), "Letting another client of one's own log in."
    )
    token_check: Rate = option(Rate(per_second=0.1, burst=5), "Trying registration tokens.")
    email: Rate = option(
        Rate(per_second=0.01, burst=5), "Having an e-mail sent, for each address it goes to, too."
    )
    registration: Rate = option(Rate(per_second=0.1, burst=5), "Registering accounts.")
    upload: Rate = option(Rate(per_second=2, burst=50), "Sending files.")
    download: Rate = option(Rate(per_second=50, burst=500), "Getting files and thumbnails.")
    federation: Rate = option(
        Rate(per_second=100, burst=1000), "Requests of another server, for each server."
    )
    federation_heavy: Rate = option(
        Rate(per_second=10, burst=200),
        "Requests of another server that cost much: joins, states of rooms, history, spaces.",
    )
    key_queries: Rate = option(
        Rate(per_second=10, burst=500),
        "Servers that are asked for their keys because an address wants it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnly:
    """A pause for writing: people read on, but send, join, create and register nothing."""

    enabled: bool = option(False, "Whether the server takes nothing new.")
    admin_contact: str = option(
        "", "Whom people are told to contact: an address such as mailto:admin@example.org."
    )
