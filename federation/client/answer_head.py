"""The head of an HTTP/1 answer, and where its body ends.

httptools refuses malformed syntax. Refused here is what two readers may understand differently
(RFC 9112, "Message Body Length"): several lengths, a length beside chunks, other transfer codings.
"""

from __future__ import annotations

import re

import httptools

MAX_HEAD_BYTES = 64 * 1024
"""Of one head."""
MAX_INFORMATIONAL = 20
"""How many answers of status 1xx are read over."""
MAX_OVERHEAD_BYTES = 64 * 1024
"""Of what a chunked body has besides its content (sizes and extensions of chunks, trailers),
where that is more than the content before it. Content does not pay for what follows: the parser
copies what it has of a trailer for each piece that comes."""

_MAX_HEADERS = 256
_BODILESS = (204, 304)
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_LINE_END = re.compile(rb"\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_LENIENT_END = re.compile(rb"\n\r?\n")


class NotHttp(Exception):
    """What came is not one answer of HTTP/1; the message says why."""


class AnswerHead:
    """A head, and the parser of the chunks behind it. Receives what httptools finds."""

    __slots__ = (
        "_fault",
        "_framing",
        "_overhead",
        "_parser",
        "content",
        "ended",
        "headers",
        "is_chunked",
        "keep_alive",
        "length",
        "status",
        "surplus",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; of repeated ones the last counts."""
        self.length: int | None = None
        """Of the body; None if the chunks tell, or the end of the connection."""
        self.is_chunked = False
        self.keep_alive = False
        """Whether the other side takes another request behind this answer."""
        self.content: list[bytes] = []
        """What chunks brought and nobody has taken yet."""
        self.ended = False
        """Whether the last chunk has come."""
        self.surplus = False
        """Whether anything came behind it."""
        self._framing: dict[str, str] = {}
        self._fault = ""
        self._overhead = 0
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    # What httptools calls. Nothing is raised through it.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._parser is None or self.status:  # a trailer: nothing here uses any
            return
        key = name.decode("latin-1").lower()
        if key in _FRAMING:
            if key in self._framing:
                self._fault = f"more than one {key}"
            # Spaces only: behind another sign the parser does not take a coding for chunks.
            self._framing[key] = value.decode("latin-1").rstrip(" ")
        elif key == "connection" and key in self.headers:
            self.headers[key] += "," + value.decode("latin-1")
        else:
            self.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if not self.status:  # or it is the head of what came behind the answer
            self.status = self._parser.get_status_code()

    def on_message_begin(self) -> None:
        self.surplus = self.ended

    def on_body(self, data: bytes) -> None:
        if not self.ended:
            self._overhead -= 2 * len(data)
            self.content.append(data)

    def on_message_complete(self) -> None:
        self.ended = True

    # What the connection calls.

    def read(self, data: bytes, method: str, *, lenient: bool) -> None:
        """Take a whole head, up to and with its empty line. Raises `NotHttp`.

        With `lenient` lines may end with LF alone or be folded, and chunks count where there is
        a length too: for connections on which there is no other answer to mistake it for.
        """
        if lenient:
            data = _LINE_END.sub(b"\r\n", _FOLD.sub(b" ", data))
        if data.count(b"\n") > _MAX_HEADERS:
            raise NotHttp("too many headers")
        assert self._parser is not None
        if lenient:
            self._parser.set_dangerous_leniencies(lenient_chunked_length=True)
        self._feed(data)
        if self._fault:
            raise NotHttp(self._fault)
        if self.status < 100:
            raise NotHttp("its head is malformed")
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise NotHttp(f"it speaks version {version[:10]}")
        if self.status == 101:
            raise NotHttp("it switches to another protocol")
        tokens = self.headers.get("connection", "").lower().split(",")
        self.keep_alive = version == "1.1" and "close" not in [token.strip() for token in tokens]
        self._frame(method, is_http10=version == "1.0", lenient=lenient)
        self.ended = False
        if not self.is_chunked:
            self._parser = None
            self.content.clear()

    def _frame(self, method: str, *, is_http10: bool, lenient: bool) -> None:
        coding = self._framing.get("transfer-encoding")
        length = self._framing.get("content-length")
        length = None if length is None else length.rstrip(" \t")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
            raise NotHttp("its length is no number")
        if coding is not None:
            if length is not None and not lenient:
                raise NotHttp("both a length and chunks")
            if coding.lower() != "chunked" or is_http10:
                raise NotHttp("an unknown transfer coding")
        if self.status < 200 or self.status in _BODILESS or method == "HEAD":
            self.length = 0
            if self.status == 204 and (coding is not None or int(length or 0)):
                # A body that cannot be; if it is sent all the same, it would begin the next answer.
                self.keep_alive = False
        elif coding is not None:
            self.is_chunked = True
        elif length is not None:
            self.length = int(length)

    def feed_chunks(self, data: bytes) -> bytes:
        """Take data of a chunked body, and give what it holds. Raises `NotHttp`."""
        self._overhead += len(data)
        self._feed(data)
        self._overhead = max(self._overhead, 0)
        content, self.content = self.content, []
        if self.ended:
            self._parser = None
        elif self._overhead > MAX_OVERHEAD_BYTES:
            raise NotHttp("the chunks hold too little")
        return content[0] if len(content) == 1 else b"".join(content)

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nobody asked for one: `read` refuses it, or it is said of an ordinary answer.
            return
        except httptools.HttpParserError as error:
            if not self.ended or not self.is_chunked:
                raise NotHttp(str(error)[:100]) from None
            # Only what follows is malformed; this answer itself is whole.
            self.surplus = True


def head_end(data: bytes, searched: int, *, lenient: bool) -> int:
    """Where the body begins, 0 if the head is not whole. Before `searched` there is no end."""
    if lenient:
        found = _LENIENT_END.search(data, max(0, searched - 3))
        return 0 if found is None else found.end()
    found_at = data.find(b"\r\n\r\n", max(0, searched - 3))
    return 0 if found_at < 0 else found_at + 4
