"""A browser, as far as single sign-on needs one: cookies, links and forms."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from tests.support.client import FullAnswer
from tests.support.server import TestServer

_FORM = re.compile(r'<form method="post" action="([^"]*)">(.*?)</form>', re.S)
_INPUT = re.compile(r"<input ([^>]*)>")
_ATTRIBUTE = re.compile(r'([a-z]+)="([^"]*)"')
_LINK = re.compile(r'<a [^>]*href="([^"]*)"')


class Browser:
    """Keeps cookies, and knows at which address the page is that it shows."""

    def __init__(self, server: TestServer, base: str = "https://hearth.test/") -> None:
        self.server = server
        self.cookies: dict[str, str] = {}
        self.cookie_flags: set[str] = set()
        self.url = base
        self.page: FullAnswer = FullAnswer(0, b"", {})

    @property
    def text(self) -> str:
        """The page as it is shown, its markup included."""
        body = self.page.body
        return html.unescape(body.decode()) if isinstance(body, bytes) else str(body)

    @property
    def location(self) -> str:
        """Where the answer sends the browser."""
        return self.page.headers["location"]

    @property
    def links(self) -> list[str]:
        found = _LINK.findall(self.page.body.decode())
        return [urljoin(self.url, html.unescape(each)) for each in found]

    async def get(self, url: str) -> FullAnswer:
        """Go to an address of the homeserver."""
        return await self._ask("GET", urljoin(self.url, url))

    async def submit(self, **changed: str) -> FullAnswer:
        """Send the first form of the page."""
        match = _FORM.search(self.page.body.decode())
        assert match is not None, self.text
        fields: dict[str, str] = {}
        for each in _INPUT.findall(match[2]):
            given = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(each)}
            if given.get("type") != "checkbox":
                fields[given["name"]] = given.get("value", "")
        fields.update(changed)
        target = urljoin(self.url, html.unescape(match[1]))
        return await self._ask("POST", target, urlencode(fields).encode())

    async def _ask(self, method: str, url: str, body: bytes | None = None) -> FullAnswer:
        parts = urlsplit(url)
        headers: dict[str, Any] = {}
        if self.cookies:
            pairs = [f"{name}={value}" for name, value in self.cookies.items()]
            headers["Cookie"] = "; ".join(["other=1", *pairs])
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self.url = url
        self.page = await self.server.client.full(method, path, body=body, headers=headers)
        cookie = self.page.headers.get("set-cookie")
        if cookie is not None:
            pair, *flags = cookie.split("; ")
            name, _, value = pair.partition("=")
            self.cookies[name] = value
            self.cookie_flags = set(flags)
        return self.page
