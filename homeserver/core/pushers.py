"""What a client may set as a pusher (client-server API, "Client Behaviour" of push; MSC3881,
MSC4174)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from homeserver.core.errors import bad_json, invalid_param, missing_param
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.types import JsonObject

HTTP, WEBPUSH, EMAIL = "http", "webpush", "email"
KINDS = (HTTP, WEBPUSH, EMAIL)
UNSTABLE_WEBPUSH = "org.matrix.msc4174.webpush"
EMAIL_APP = "m.email"
EVENT_ID_ONLY = "event_id_only"
GATEWAY_PATH = "/_matrix/push/v1/notify"
MAX_APP_ID = 64
MAX_PUSHKEY_BYTES = 512
MAX_NAME = 500
MAX_LANG = 100
MAX_DATA_BYTES = 16_384
MAX_URL = 2_000
ENABLED, ENABLED_UNSTABLE = "enabled", "org.matrix.msc3881.enabled"

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")


@dataclass(frozen=True, slots=True)
class WantedPusher:
    """A pusher as a client asks for it. `kind` None: it is to be removed."""

    kind: str | None
    app_id: str
    pushkey: str
    app_display_name: str = ""
    device_display_name: str = ""
    profile_tag: str | None = None
    lang: str = ""
    data: JsonObject | None = None
    append: bool = False
    enabled: bool | None = None
    gateway: str = ""
    """What answers or fails together: a server and, by HTTPS or not, its port."""


def parse(body: JsonObject, *, allow_http: bool = False) -> WantedPusher:
    """The pusher that the body of a request describes.

    `allow_http`: gateways may be named by http:// and with any path.
    Raises MatrixError 400: M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM.
    """
    app_id = _text(body, "app_id", MAX_APP_ID)
    pushkey = _text(body, "pushkey", MAX_PUSHKEY_BYTES)
    if len(pushkey.encode("utf-8", "surrogatepass")) > MAX_PUSHKEY_BYTES or not pushkey:
        raise invalid_param(f"pushkey must have 1 to {MAX_PUSHKEY_BYTES} bytes.")
    if "kind" not in body:
        raise missing_param("kind")
    kind = body["kind"]
    if kind is None:
        return WantedPusher(None, app_id, pushkey)
    if not isinstance(kind, str):
        raise bad_json("kind must be a string or null.")
    if kind == UNSTABLE_WEBPUSH:
        kind = WEBPUSH
    if kind not in KINDS:
        raise invalid_param(f"kind must be null or one of {', '.join(KINDS)}.")
    if kind == EMAIL and app_id != EMAIL_APP:
        raise invalid_param(f"app_id of a pusher of kind email must be {EMAIL_APP}.")
    data = _data(body)
    gateway = "mail"
    if kind == HTTP:
        gateway = _gateway(data, path=GATEWAY_PATH, allow_http=allow_http)
    elif kind == WEBPUSH:
        gateway = _gateway(data, path=None, allow_http=False)
        _check_web_push(pushkey, data)
    return WantedPusher(
        kind,
        app_id,
        pushkey,
        _text(body, "app_display_name", MAX_NAME),
        _text(body, "device_display_name", MAX_NAME),
        _text(body, "profile_tag", MAX_NAME) if body.get("profile_tag") is not None else None,
        _text(body, "lang", MAX_LANG),
        data,
        _flag(body, "append") or False,
        _flag(body, ENABLED if ENABLED in body else ENABLED_UNSTABLE),
        gateway,
    )


def decoded(text: str) -> bytes | None:
    """What base64 for URLs stands for, with or without padding; None if it is something else."""
    if _BASE64URL.fullmatch(text) is None:
        return None
    try:
        return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (ValueError, binascii.Error):
        return None


def _data(body: JsonObject) -> JsonObject:
    if "data" not in body:
        raise missing_param("data")
    data = body["data"]
    if not isinstance(data, dict):
        raise bad_json("data must be an object.")
    if len(json.dumps(data, ensure_ascii=False)) > MAX_DATA_BYTES:
        raise invalid_param(f"data is larger than {MAX_DATA_BYTES} bytes.")
    if not isinstance(data.get("format", ""), str):
        raise bad_json("data.format must be a string.")
    # The server says this, not the client.
    return {key: value for key, value in data.items() if key != "activated"}


def _gateway(data: JsonObject, *, path: str | None, allow_http: bool) -> str:
    if "url" not in data:
        raise missing_param("data.url")
    url = data["url"]
    if not isinstance(url, str):
        raise bad_json("data.url must be a string.")
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise invalid_param("data.url is not a valid URL.")
    try:
        parts = urlsplit(url)
        server = ServerName.parse(parts.netloc)
    except (ValueError, InvalidIdentifier):
        raise invalid_param("data.url is not a valid URL.") from None
    if parts.fragment or "#" in url:
        raise invalid_param("data.url must have no fragment.")
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        raise invalid_param("data.url must start with https://.")
    if path is not None and not allow_http and (parts.path != path or parts.query):
        raise invalid_param(f"The path of data.url must be {path}.")
    port = server.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{server.host.lower()}:{port}"


def _check_web_push(pushkey: str, data: JsonObject) -> None:
    key = decoded(pushkey)
    if key is None or len(key) != 65 or key[0] != 4:
        raise invalid_param("pushkey must be a P-256 key, uncompressed, in base64 for URLs.")
    if "auth" not in data:
        raise missing_param("data.auth")
    if not isinstance(data["auth"], str):
        raise bad_json("data.auth must be a string.")
    auth = decoded(data["auth"])
    if auth is None or len(auth) != 16:
        raise invalid_param("data.auth must be 16 bytes in base64 for URLs.")


def _text(body: JsonObject, key: str, longest: int) -> str:
    if key not in body:
        raise missing_param(key)
    value: Any = body[key]
    if not isinstance(value, str):
        raise bad_json(f"{key} must be a string.")
    if "\x00" in value:
        raise invalid_param(f"{key} must not hold NUL.")
    if len(value) > longest:
        raise invalid_param(f"{key} must have at most {longest} characters.")
    return value


def _flag(body: JsonObject, key: str) -> bool | None:
    value = body.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise bad_json(f"{key} must be true or false.")
