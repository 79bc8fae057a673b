"""The key by which push services of browsers know this server (RFC 8292; MSC4174).

It is a capability too; this endpoint is for pages that have no session yet.
"""

from __future__ import annotations

import msgspec

from homeserver.push.web_push import VapidKey
from homeserver.web.endpoint import Auth, endpoint


class WebPushAnswer(msgspec.Struct, omit_defaults=True):
    """`vapid`: uncompressed, in base64 for URLs, as `PushManager.subscribe` takes it."""

    enabled: bool
    vapid: str | None = None


@endpoint("GET", "/_hearth/client/v1/web_push", auth=Auth.NONE, rate="read")
async def get_web_push(key: VapidKey) -> WebPushAnswer:
    """Whether pushers of kind webpush are served, and the public key."""
    if not key.offered:
        return WebPushAnswer(False)
    return WebPushAnswer(True, await key.public_key())


ENDPOINTS = [get_web_push]
