"""Where people are sent back with their login token: which addresses are taken, which are known.

Client-server API, "SSO client login/authentication", "Security considerations".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from homeserver.core.errors import MatrixError, invalid_param

MAX_CHARACTERS = 4096

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AUTHORITY = re.compile(r"//[^/\\?#@]+(?=[/?#]|$)")
_WEB = frozenset({"http", "https"})
_REFUSED = frozenset(
    {
        "about",
        "blob",
        "data",
        "file",
        "filesystem",
        "ftp",
        "intent",
        "javascript",
        "mailto",
        "sms",
        "tel",
        "vbscript",
        "view-source",
        "ws",
        "wss",
    }
)
"""Schemes of which no client is started that could take a token."""
_SAFE = "!#$%&'()*+,/:;=?@[]~"
_TOKEN = "loginToken"


def checked(url: str) -> str:
    """A client's address in the form in which people are sent there, without login tokens.

    Schemes of apps are allowed. Raises MatrixError 400 M_INVALID_PARAM.
    """
    match = _SCHEME.match(url)
    if match is None or len(url) > MAX_CHARACTERS:
        raise _refused("is no address of a client")
    if not url.isprintable() or " " in url or "\\" in url:
        raise _refused("holds characters that no address has")
    scheme = match[1].lower()
    if scheme in _REFUSED:
        raise _refused(f"begins with {scheme}:, to which nobody is sent")
    if scheme in _WEB:
        if _AUTHORITY.match(url, match.end()) is None:
            raise _refused("names no web server")
        try:
            urlsplit(url).port  # noqa: B018
        except ValueError:
            raise _refused("names no web server") from None
    return _without_token(quote(url, safe=_SAFE))


def with_token(url: str, token: str) -> str:
    """The address with a login token in its query."""
    address, hash_sign, fragment = url.partition("#")
    joint = "&" if "?" in address else "?"
    if address.endswith(("?", "&")):
        joint = ""
    return f"{address}{joint}{_TOKEN}={quote(token, safe='')}{hash_sign}{fragment}"


def is_known(url: str, prefixes: Sequence[str]) -> bool:
    """Whether an address that was checked is one of the clients that the operator knows."""
    parts = urlsplit(url)
    if any(segment in (".", "..") for segment in unquote(parts.path).split("/")):
        return False
    return any(_begins(url, prefix) for prefix in prefixes)


def shown(url: str) -> str:
    """What people are told of where they are sent: the web server, or the scheme of the app."""
    parts = urlsplit(url)
    if parts.scheme in _WEB:
        return parts.netloc if parts.scheme == "https" else f"http://{parts.netloc}"
    return f"{parts.scheme}:"


def _without_token(url: str) -> str:
    address, hash_sign, fragment = url.partition("#")
    path, question, query = address.partition("?")
    kept = [each for each in query.split("&") if unquote_plus(each.partition("=")[0]) != _TOKEN]
    query = "&".join(kept)
    return f"{path}{question if query else ''}{query}{hash_sign}{fragment}"


def _begins(url: str, prefix: str) -> bool:
    """Whether the scheme and the server are the same, and the rest begins with whole segments."""
    try:
        one, other = urlsplit(url), urlsplit(prefix)
    except ValueError:
        return False
    if (one.scheme, one.netloc.lower()) != (other.scheme, other.netloc.lower()):
        return False
    rest, wanted = _behind_server(url), _behind_server(prefix)
    if not rest.startswith(wanted):
        return False
    return wanted in ("", "/") or wanted.endswith("/") or rest[len(wanted) :][:1] in ("", *"/?#")


def _behind_server(url: str) -> str:
    rest = url.partition(":")[2]
    if not rest.startswith("//"):
        return rest
    match = re.match(r"//[^/?#]*", rest)
    return rest[match.end() if match else 0 :]


def _refused(why: str) -> MatrixError:
    return invalid_param(f"redirectUrl {why}.")
