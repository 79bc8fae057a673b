"""The part of the composition root with what clients find out before they log in."""

from __future__ import annotations

from homeserver.api.client.rendezvous import RendezvousSettings
from homeserver.api.client.rtc import RtcTransports
from homeserver.api.client.well_known import WellKnown
from homeserver.parts import Parts


def build_discovery(parts: Parts) -> None:
    """Well-known files, transports of calls, and where rendezvous are."""
    config, add = parts.config, parts.services.add
    transports = add(RtcTransports(config.matrix_rtc.livekit_service_urls))
    policy = config.policy_server
    add(
        WellKnown(
            config.public_base_url,
            rtc_foci=transports.listed(),
            policy_key=None if policy is None else policy.ed25519,
        )
    )
    base_url = (config.public_base_url or f"https://{config.server_name}").rstrip("/") + "/"
    add(RendezvousSettings(base_url, parts.reactor))
