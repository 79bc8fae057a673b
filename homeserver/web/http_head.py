"""The head of an HTTP/1 request: what is refused, and where the client really is.

httptools refuses malformed syntax. Refused here is what is well-formed, but may be understood
otherwise by a proxy in front of this server: several lengths, a length beside chunks, unknown
transfer codings, several hosts (RFC 9112, "Message Body Length" and "Request Smuggling").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import httptools

from homeserver.core.errors import MatrixError
from homeserver.web.request import Request

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one connection may take. Sizes in bytes, times in seconds."""

    max_head_bytes: int = 32 * 1024
    max_target_bytes: int = 16 * 1024
    max_header_bytes: int = 16 * 1024
    """One header, its name and value."""
    max_headers: int = 100
    idle_seconds: float = 180.0
    """Between requests."""
    header_seconds: float = 30.0
    """From the first byte of a request to the end of its head."""
    body_seconds: float = 120.0
    """From the head to the end of a body that is read whole."""
    stream_seconds: float = 60.0
    """Without any data of a body that is streamed."""
    write_seconds: float = 120.0
    """Until a client has taken what fills the write buffer (64 to 128 kB)."""
    linger_seconds: float = 3.0
    """How long a refused body is thrown away, so that the client reads why."""
    max_connections: int = 100_000
    """Beyond these, those make room that are without a request."""
    max_overhead_bytes: int = 64 * 1024
    """Of what a chunked body has besides its content (sizes and extensions of chunks, trailers),
    where that is more than the content."""


class BadRequest(MatrixError):
    """A request that is not HTTP as this server takes it; the connection is closed."""

    def __init__(self, error: str, status: int = 400, errcode: str = "M_UNKNOWN") -> None:
        super().__init__(status, errcode, error)


class Head:
    """Receives what httptools finds in one request. Raises BadRequest from `feed`."""

    __slots__ = (
        "_complete",
        "_ended",
        "_limits",
        "_overhead",
        "_parser",
        "_target",
        "body",
        "content_length",
        "expects_continue",
        "headers",
        "is_chunked",
        "is_http10",
        "keep_alive",
        "surplus",
    )

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._target = b""
        self._ended = False
        self._complete = False
        self.headers: dict[bytes, bytes] = {}
        self.content_length = 0
        self.is_chunked = False
        self.is_http10 = False
        self.keep_alive = False
        self.expects_continue = False
        self._overhead = 0
        """Bytes of the body that are not its content, less its content."""
        self.body = bytearray()
        """Decoded chunks that nobody has taken yet."""
        self.surplus = False
        """Whether more came behind the last chunk."""
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self.surplus = True

    def on_url(self, url: bytes) -> None:
        if not self._complete:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._ended:  # a trailer: nothing here uses any
            return
        name = name.lower()
        if name not in self.headers:
            self.headers[name] = value
        elif name in _SINGLE:
            raise BadRequest(f"More than one {name.decode('ascii')} header.")
        else:
            self.headers[name] += b", " + value

    def on_headers_complete(self) -> None:
        self._ended = True
        if self._parser is not None:  # afterwards the parser has forgotten
            self.keep_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._overhead -= 2 * len(data)
            self.body += data

    def on_message_complete(self) -> None:
        self._complete = True

    # What the connection calls.

    def read_head(self, data: bytes) -> Request:
        """The request of a whole head, up to and with its empty line. Raises BadRequest."""
        parser = self._parser
        assert parser is not None
        self._check_lines(data)
        line = data[: data.find(b"\r")]
        if line.count(b" ") != 2 or line[-9:-3] != b" HTTP/":  # the parser also takes others
            raise BadRequest("The request line is malformed.")
        upgrade = self._feed(data)
        if not self._ended:
            raise BadRequest("The head is malformed.")
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise BadRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here.", 505)
        self.is_http10 = version == "1.0"
        self._check_framing(upgrade and method != "CONNECT")
        if method == "CONNECT":
            raise BadRequest("This is not a proxy.", 405, "M_UNRECOGNIZED")
        expect = self.headers.get(b"expect")
        if expect is not None and not self.is_http10:
            if expect.lower() != b"100-continue":
                raise BadRequest("This expectation cannot be met.", 417)
            self.expects_continue = True
        if not self.is_chunked:
            self._parser = None  # the length says all; an idle connection keeps no parser
        return Request(method, self._origin_form(method), self.headers)

    def _check_lines(self, data: bytes) -> None:
        if data.count(b"\n") - 2 > self._limits.max_headers:
            raise BadRequest("Too many headers.", 431)
        longest = self._limits.max_header_bytes
        if len(data) > longest and max(map(len, data.split(b"\r\n")[1:])) - 2 > longest:
            raise BadRequest("A header is too large.", 431)

    def _check_framing(self, upgrade: bool) -> None:
        headers = self.headers
        if b"host" not in headers and not self.is_http10:
            raise BadRequest("The host header is missing.")
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if coding is not None:
            if length is not None:
                raise BadRequest("Both content-length and transfer-encoding.")
            if coding.lower() != b"chunked" or self.is_http10 or upgrade:
                raise BadRequest("This transfer coding is not supported.", 501)
            self.is_chunked = True
        elif length is not None:
            if not length.isdigit() or len(length) > 18:
                raise BadRequest("The content length is malformed.")
            self.content_length = int(length)

    def _origin_form(self, method: str) -> str:
        target = self._target
        if len(target) > self._limits.max_target_bytes:
            raise BadRequest("The address is too long.", 414)
        if target == b"*" and method == "OPTIONS":
            return "*"
        if not target.startswith(b"/"):
            if not target.lower().startswith((b"http://", b"https://")):
                raise BadRequest("The address is malformed.")
            try:
                url = httptools.parse_url(target)
            except httptools.HttpParserInvalidURLError as error:
                raise BadRequest("The address is malformed.") from error
            target = (url.path or b"/") + (b"?" + url.query if url.query else b"")
        if b"#" in target:
            raise BadRequest("The address has a fragment.")
        try:
            return target.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRequest("The address is not UTF-8.") from error

    def feed_chunks(self, data: bytes) -> bool:
        """Take data of a chunked body into `body`; whether the last chunk has come."""
        self._overhead += len(data)
        self._feed(data)
        if self._complete:
            self._parser = None
        elif self._overhead > self._limits.max_overhead_bytes:
            raise BadRequest("The chunks hold too little.")
        return self._complete

    def _feed(self, data: bytes) -> bool:
        """Whether the client asks for an upgrade, which is not taken up."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserError as error:
            if self._complete:
                # Only what follows is malformed; this request itself is whole.
                self.surplus = True
                return False
            cause = error.__context__
            if isinstance(cause, BadRequest):
                raise cause from None
            raise BadRequest("The request is malformed.") from error
        return False


def without_blank_lines(data: bytes) -> bytes:
    """What begins with a request line (RFC 9112, "Message Parsing"). Raises BadRequest.

    The last CR may be of a blank line of which the rest has not come.
    """
    rest = data.lstrip(b"\r\n")
    blank = data[: len(data) - len(rest)]
    if blank.removesuffix(b"\r").replace(b"\r\n", b"") or (blank.endswith(b"\r") and rest):
        raise BadRequest("Lines must end with CR LF.")
    return b"\r" if blank.endswith(b"\r") else rest


def client_address(
    peer: str, forwarded_for: bytes | None, trusted_proxies: Sequence[Network]
) -> str:
    """The client's address: the last one that no trusted proxy vouches for.

    `X-Forwarded-For` counts only if the peer is a trusted proxy; of its entries those to the
    right were added last.
    """
    if forwarded_for is None or not trusted_proxies:
        return peer
    for entry in reversed(forwarded_for.decode("latin-1").split(",")):
        if not _is_trusted(peer, trusted_proxies):
            return peer
        address = _parse_address(entry.strip())
        if address is None:
            return peer
        peer = str(address)
    return peer


def _is_trusted(peer: str, trusted_proxies: Sequence[Network]) -> bool:
    address = _parse_address(peer)
    return address is not None and any(
        address.version == network.version and address in network for network in trusted_proxies
    )


def _parse_address(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
