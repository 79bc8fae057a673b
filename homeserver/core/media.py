"""Names of files: mxc URIs, content types, and the headers that carry them.

Client-server API, "Content repository". What clients and other servers say of a file is theirs
alone: nothing here looks into files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from homeserver.core.ids import InvalidIdentifier, ServerName

OCTETS = "application/octet-stream"
MAX_FILENAME = 255
"""Longest file name, in bytes."""

INLINE_TYPES = frozenset(
    {
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        "image/jpeg",
        "image/gif",
        "image/png",
        "image/apng",
        "image/webp",
        "image/avif",
        "video/mp4",
        "video/webm",
        "video/ogg",
        "video/quicktime",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/mpeg",
        "audio/ogg",
        "audio/wave",
        "audio/wav",
        "audio/x-wav",
        "audio/x-pn-wav",
        "audio/flac",
        "audio/x-flac",
    }
)
"""Types that browsers may show in place ("Serving inline content")."""

_SCHEME = "mxc://"
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_CONTENT_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+)\s*(;[ -~]*)?")
_PARAMETERS = re.compile(
    r"\s*(?:;\s*(?:[A-Za-z0-9!#$%&'*+.^_`|~-]+=(?:[^\s;,\"]+|\"[^\"\\]*\")\s*)?)*"
)
_MAX_CONTENT_TYPE = 255
_MAX_DEPTH = 20
_PARAMETER = re.compile(
    r";\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^;\"]*)", re.DOTALL
)


class MediaName(NamedTuple):
    """What an mxc URI names."""

    server_name: str
    media_id: str


def is_media_id(text: str) -> bool:
    """Whether a text may be the last part of an mxc URI."""
    return _MEDIA_ID.fullmatch(text) is not None


def parse_uri(uri: object) -> MediaName | None:
    """The parts of an mxc URI; None for anything else."""
    if not isinstance(uri, str) or not uri.startswith(_SCHEME):
        return None
    server_name, _, media_id = uri[len(_SCHEME) :].partition("/")
    if not is_media_id(media_id):
        return None
    try:
        ServerName.parse(server_name)
    except InvalidIdentifier:
        return None
    return MediaName(server_name, media_id)


def names_in(content: Any) -> set[MediaName]:
    """The files that an event's content names, anywhere in it."""
    return set(_names(content, 0))


def _names(value: Any, depth: int) -> Iterator[MediaName]:
    if isinstance(value, str):
        name = parse_uri(value)
        if name is not None:
            yield name
    elif depth < _MAX_DEPTH:
        if isinstance(value, dict):
            for each in value.values():
                yield from _names(each, depth + 1)
        elif isinstance(value, list):
            for each in value:
                yield from _names(each, depth + 1)


def content_type(text: str | None) -> str:
    """A content type as it may be kept and sent; what is none becomes octets.

    Parameters that are malformed go: browsers take a comma in them for the beginning of another
    type, and believe that one.
    """
    if text is None:
        return OCTETS
    text = text.strip()
    match = _CONTENT_TYPE.fullmatch(text) if len(text) <= _MAX_CONTENT_TYPE else None
    if match is None:
        return OCTETS
    return text if _PARAMETERS.fullmatch(text, match.end(1)) else match[1]


def media_type(text: str) -> str:
    """A content type without its parameters, in lower case."""
    return text.partition(";")[0].strip().lower()


def filename(text: str | None) -> str | None:
    """A file name as it may be kept and sent: one line without paths; None if nothing is left.

    Control characters go, and those that change the direction of text: they make a name look
    like another one.
    """
    if not text:
        return None
    kept = "".join(
        "_" if char in "/\\" else char
        for char in text
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )
    kept = kept.strip()
    encoded = kept.encode("utf-8")
    if len(encoded) > MAX_FILENAME:
        kept = _shortened(kept)
    return kept if kept.strip(". ") else None


def _shortened(name: str) -> str:
    """The beginning of a name, with its ending."""
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, dot, ending = name, "", ""
    room = MAX_FILENAME - len((dot + ending).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + dot + ending


def disposition(name: str | None, type_: str) -> str:
    """The `Content-Disposition` of a file (RFC 6266)."""
    kind = "inline" if media_type(type_) in INLINE_TYPES else "attachment"
    if name is None:
        return kind
    plain = "".join(char if " " <= char <= "~" else "_" for char in name)
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    header = f'{kind}; filename="{quoted}"'
    if plain != name:
        header += f"; filename*=utf-8''{quote(name, safe='')}"
    return header


def disposition_name(header: str | None) -> str | None:
    """The file name in a `Content-Disposition` of another server."""
    if header is None:
        return None
    values: dict[str, str] = {}
    for match in _PARAMETER.finditer(header[:4096]):
        value = match[2].strip()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
        values.setdefault(match[1].lower(), value)
    extended = values.get("filename*")
    if extended is not None:
        charset, _, rest = extended.partition("'")
        _, found, text = rest.partition("'")
        if found and charset.lower() == "utf-8":
            try:
                return filename(unquote_to_bytes(text).decode("utf-8"))
            except UnicodeDecodeError:
                pass
    return filename(values.get("filename"))


class ByteRange(NamedTuple):
    """Bytes from `start` up to and without `end`."""

    start: int
    end: int


class UnsatisfiableRange(Exception):
    """No byte of a file is in the range that was asked for."""


def byte_range(header: str | None, size: int) -> ByteRange | None:
    """What a `Range` header asks of a file; None for the whole file (RFC 9110, "Range").

    Several ranges, other units and malformed ones are answered by the whole file. Raises
    UnsatisfiableRange.
    """
    if header is None:
        return None
    match = re.fullmatch(r"\s*bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", header, re.IGNORECASE)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        wanted = int(match[2])
        if not wanted or not size:
            raise UnsatisfiableRange
        return ByteRange(max(0, size - wanted), size)
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None
    if start >= size:
        raise UnsatisfiableRange
    return ByteRange(start, min(last + 1, size))
