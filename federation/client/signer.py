"""The `X-Matrix` authorisation of requests (Server-Server API, "Request Authentication")."""

from __future__ import annotations

from homeserver.core import canonical
from homeserver.core.signing import SigningKey, encode_base64
from homeserver.core.types import JsonObject


def encode_content(content: JsonObject) -> bytes:
    """The body of a request, in the form in which it is signed; raises `CanonicalJSONError`.

    Events of room versions 1 to 5 may hold floats, which the strict form has not.
    """
    try:
        return canonical.encode(content)
    except canonical.CanonicalJSONError:
        return canonical.encode_lenient(content)


class RequestSigner:
    """Signs requests as one server, with one key."""

    def __init__(self, server_name: str, key: SigningKey) -> None:
        self._server_name = server_name
        self._key = key

    def authorization(
        self, method: str, uri: str, destination: str, content: bytes | None = None
    ) -> str:
        """The `Authorization` header of a request.

        Parameters: `uri` is path and query as sent; `content` is the body from
        `encode_content`, None when there is none. Delegation changes none of the names.
        """
        message = canonical.encode(
            {
                "destination": destination,
                "method": method,
                "origin": self._server_name,
                "uri": uri,
            }
        )
        if content is not None:
            # "content" sorts before the other keys, and its value is encoded already.
            message = b'{"content":' + content + b"," + message[1:]
        signature = encode_base64(self._key.sign(message))
        return (
            f'X-Matrix origin="{self._server_name}",destination="{destination}",'
            f'key="{self._key.key_id}",sig="{signature}"'
        )
