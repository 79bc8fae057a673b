"""What the server supports (Client-server API, "API Versions")."""

from __future__ import annotations

import msgspec

from homeserver.web.endpoint import Auth, endpoint

VERSIONS = [
    *("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"),
    *(f"v1.{minor}" for minor in range(1, 13)),
]

UNSTABLE_FEATURES = {
    # Not in the specification.
    "org.matrix.simplified_msc3575": True,
    "org.matrix.msc3814": True,
    "org.matrix.msc3391": True,
    "org.matrix.msc3912": True,
    "com.beeper.msc4446": True,
    "fi.mau.msc2815": True,
    "org.matrix.msc4108": True,
    "io.element.msc4388": True,
    "org.matrix.msc4140": True,
    "org.matrix.msc4143": True,
    "org.matrix.msc4155": True,
    "org.matrix.msc4262": True,
    "org.matrix.msc4306": True,
    "org.matrix.msc4354": True,
    "org.matrix.msc4429": True,
    "org.matrix.msc3881": True,
    "org.matrix.msc4174": True,
    # In the specification by now. Clients look for these where a server names no version that
    # holds them, and some whatever it names.
    "org.matrix.e2e_cross_signing": True,
    "org.matrix.msc2285.stable": True,
    "org.matrix.msc2432": True,
    "org.matrix.msc3030": True,
    "org.matrix.msc3440.stable": True,
    "org.matrix.msc3771": True,
    "org.matrix.msc3773": True,
    "org.matrix.msc3827.stable": True,
    "org.matrix.msc3856": True,
    "org.matrix.msc3856.stable": True,
    "org.matrix.msc3874": True,
    "org.matrix.msc3882": True,
    "org.matrix.msc3916": True,
    "org.matrix.msc3916.stable": True,
    "org.matrix.msc3981": True,
    "org.matrix.msc4222": True,
    "org.matrix.msc4380": True,
    "org.matrix.msc4380.stable": True,
    "uk.half-shot.msc2666.query_mutual_rooms": True,
    "uk.half-shot.msc2666.query_mutual_rooms.stable": True,
    "uk.timedout.msc4323": True,
    "uk.tcpip.msc4133": True,
    "uk.tcpip.msc4133.stable": True,
}
"""Features that clients find by name: those without a version of the specification, and old names
of others."""


class VersionsAnswer(msgspec.Struct):
    versions: list[str]
    unstable_features: dict[str, bool]


@endpoint("GET", "/_matrix/client/versions", auth=Auth.NONE)
async def get_versions() -> VersionsAnswer:
    """The specification versions that clients can rely on."""
    return VersionsAnswer(VERSIONS, UNSTABLE_FEATURES)


ENDPOINTS = [get_versions]
