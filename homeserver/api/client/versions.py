"""What the server supports (Client-server API, "API Versions")."""

from __future__ import annotations

import msgspec

from homeserver.web.endpoint import Auth, endpoint

VERSIONS = [
    *("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"),
    *(f"v1.{minor}" for minor in range(1, 13)),
]

UNSTABLE_FEATURES = {
    "org.matrix.simplified_msc3575": True,
    # Profile fields, in the specification since 1.16: clients look for the flag below that.
    "uk.tcpip.msc4133": True,
    "uk.tcpip.msc4133.stable": True,
}
"""Features by the names they had before the specification versions that hold them."""


class VersionsAnswer(msgspec.Struct):
    versions: list[str]
    unstable_features: dict[str, bool]


@endpoint("GET", "/_matrix/client/versions", auth=Auth.NONE)
async def get_versions() -> VersionsAnswer:
    """The specification versions that clients can rely on."""
    return VersionsAnswer(VERSIONS, UNSTABLE_FEATURES)


ENDPOINTS = [get_versions]
