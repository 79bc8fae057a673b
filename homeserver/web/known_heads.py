"""Heads of requests that differ from one already read in nothing but where and for whom it asks.

A client sends the same headers with each request, and so do all that run the same program. What was
read of them once is kept, by their bytes. Of what differs (the address, the access token, the
addresses that a proxy puts before) only such characters are taken here as mean nothing but
themselves: so this is what reading the head again would give. Whatever is otherwise is read
(`homeserver.web.http_head`), and a test compares the two.
"""

from __future__ import annotations

import re

from homeserver.web.http_head import Head, HttpLimits
from homeserver.web.request import Request

MAX_KNOWN = 256
MAX_BYTES = 2048
"""Of all headers of a request."""

_LINE = re.compile(rb"(GET|PUT|POST|DELETE) (/[A-Za-z0-9/._~!$&'()*+,;=:@%?-]*) HTTP/1\.1(?=\r\n)")
_VARYING = re.compile(
    rb"\r\n(?:(?i:authorization): Bearer ([A-Za-z0-9._~+/=-]+)"  # RFC 6750
    rb"|(?i:x-forwarded-for): ([0-9A-Fa-f.:]+(?:, [0-9A-Fa-f.:]+)*))(?=\r\n)"
)
_TOKEN, _ADDRESSES = b"authorization", b"x-forwarded-for"


class KnownHeads:
    """The heads that the connections of a listener have read."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._max_bytes = min(MAX_BYTES, limits.max_header_bytes)
        self._known: dict[tuple[bytes | None, ...], Head] = {}
        """By what does not differ; their `headers` are without what does."""
        self.hits = 0

    def __len__(self) -> int:
        return len(self._known)

    def read(self, data: bytes) -> tuple[Head, Request]:
        """A whole head, up to and with its empty line. Its headers are the request's; nobody may
        change it, unless a body in chunks follows or something is expected. Raises BadRequest."""
        line = _LINE.match(data)
        if line is None:
            return self._anew(data)
        start = line.end()
        if start > self._limits.max_target_bytes or len(data) - start > self._max_bytes:
            return self._anew(data)
        parts: list[bytes | None] = _VARYING.split(data[start:])
        token = addresses = None
        if len(parts) > 1:
            token, addresses = parts[1], parts[2]
            if len(parts) > 4:
                if len(parts) > 7 or (token is None) == (parts[4] is None):
                    return self._anew(data)
                token, addresses = token or parts[4], addresses or parts[5]
        method = line[1]
        key = (method, token and _TOKEN, addresses and _ADDRESSES, *parts[::3])
        head = self._known.get(key)
        if head is None:
            return self._keep(key, token, addresses, data)
        self.hits += 1
        headers = head.headers.copy()
        if token is not None:
            headers[_TOKEN] = b"Bearer " + token
        if addresses is not None:
            headers[_ADDRESSES] = addresses
        return head, Request(method.decode("ascii"), line[2].decode("ascii"), headers)

    def _anew(self, data: bytes) -> tuple[Head, Request]:
        head = Head(self._limits)
        return head, head.read_head(data)

    def _keep(
        self,
        key: tuple[bytes | None, ...],
        token: bytes | None,
        addresses: bytes | None,
        data: bytes,
    ) -> tuple[Head, Request]:
        head, request = self._anew(data)
        shared = head.headers.copy()
        authorization = None if token is None else b"Bearer " + token
        if (
            # An odd one is no part of what is the same.
            shared.pop(_TOKEN, None) == authorization
            and shared.pop(_ADDRESSES, None) == addresses
            and not head.is_chunked
            and not head.expects_continue
            and b"upgrade" not in shared
        ):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            head.headers = shared
            self._known[key] = head
        return head, request
