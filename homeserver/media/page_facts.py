"""What a page says of itself: Open Graph, and for pages without it their title and text.

Nothing of a page but plain text of bounded length and addresses goes on to clients. Pure
functions; they take long for long pages, so they are for a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from homeserver.core.types import JsonObject

MAX_TEXT = 1_000
"""Characters of one value."""
MAX_PROPERTIES = 50
MAX_LOOKED_AT = 1 << 20
"""Bytes of a page that are parsed: what is wanted stands at its beginning."""
_MIN_DESCRIPTION = 200
"""Text is taken from the page until there is so much."""
_KNOWN = re.compile(r"(og|article|profile|book|video|music):[a-z0-9_:.-]{1,60}")
_TWITTER = {
    "twitter:title": "og:title",
    "twitter:description": "og:description",
    "twitter:image": "og:image",
    "twitter:image:src": "og:image",
}
_NO_TEXT = frozenset(
    {"aside", "audio", "button", "canvas", "footer", "form", "head", "header", "iframe", "math"}
    | {"nav", "noscript", "object", "script", "select", "style", "svg", "template", "video"}
)
_BLOCKS = frozenset(
    {"article", "blockquote", "br", "dd", "div", "h1", "h2", "h3", "h4", "li", "p", "pre"}
    | {"section", "td"}
)
_DECLARED = re.compile(rb"charset\s*=|encoding\s*=", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def facts_of(body: bytes, charset: str | None, url: str) -> JsonObject:
    """The properties of an HTML page at `url`: `og:title` and so on, all of them texts.

    `og:image` is an absolute URL. Empty if nothing can be made of the page.
    """
    root = _parsed(body, charset)
    if root is None:
        return {}
    base = _base(root, url)
    found: dict[str, str] = {}
    fallback: dict[str, str] = {}
    for name, value in _meta(root):
        if name in _TWITTER:
            fallback.setdefault(_TWITTER[name], value)
        elif name == "description":
            fallback.setdefault("og:description", value)
        elif _KNOWN.fullmatch(name) and len(found) < MAX_PROPERTIES:
            found.setdefault(name, value)
    for name, value in fallback.items():
        found.setdefault(name, value)
    _title(root, found)
    _image(root, found, base)
    if "og:description" not in found and (text := _text_of(root)):
        found["og:description"] = text
    return dict(found)


def embed_link(body: bytes, charset: str | None, url: str) -> str | None:
    """Where a page says that its oEmbed description (JSON) is: an absolute URL."""
    root = _parsed(body, charset)
    if root is None:
        return None
    for link in root.iter("link"):
        if (
            "alternate" in (link.get("rel") or "").lower().split()
            and (link.get("type") or "").lower() == "application/json+oembed"
        ):
            href = _plain(link.get("href") or "", 2048)
            return _joined(_base(root, url), href) if href else None
    return None


def embedded(answer: Any) -> JsonObject:
    """The properties in an oEmbed answer (version 1.0); empty if it is none.

    Its HTML is left alone.
    """
    if not isinstance(answer, dict) or str(answer.get("version")) not in ("1.0", "1"):
        return {}
    found: dict[str, str] = {}
    photo = "url" if answer.get("type") == "photo" else ""
    for name, keys in (
        ("og:title", ("title", "author_name")),
        ("og:site_name", ("provider_name",)),
        ("og:image", (photo, "thumbnail_url")),
    ):
        for key in keys:
            value = answer.get(key)
            if isinstance(value, str) and (text := _plain(value)):
                found.setdefault(name, text)
    return dict(found)


def _parsed(body: bytes, charset: str | None) -> Any:
    # Not every server shows previews: the library takes some megabytes.
    import lxml.html

    text = body[:MAX_LOOKED_AT].replace(b"\x00", b"")
    for encoding in (charset or _guessed(text), None):
        try:
            parser = lxml.html.HTMLParser(
                encoding=encoding, no_network=True, remove_comments=True, remove_pis=True
            )
            return lxml.html.document_fromstring(text, parser=parser)
        except LookupError:
            continue  # an encoding that nobody knows
        except (lxml.etree.LxmlError, ValueError, AssertionError):
            return None
    return None


def _guessed(text: bytes) -> str | None:
    """The encoding of a page whose server names none; None: what the page says of itself."""
    if _DECLARED.search(text[:2048]):
        return None
    # The last characters may be cut in two.
    return "utf-8" if len(text.decode("utf-8", "ignore").encode()) > len(text) - 4 else None


def _base(root: Any, url: str) -> str:
    for each in root.iter("base"):
        href = each.get("href")
        if href:
            return _joined(url, href) or url
    return url


def _meta(root: Any) -> Iterator[tuple[str, str]]:
    for each in root.iter("meta"):
        name = (each.get("property") or each.get("name") or "").strip().lower()
        value = _plain(each.get("content") or "")
        if name and value:
            yield name, value


def _title(root: Any, found: dict[str, str]) -> None:
    if "og:title" in found:
        return
    for tag in ("title", "h1", "h2", "h3"):
        for each in root.iter(tag):
            if tag == "title" and any(parent.tag == "svg" for parent in each.iterancestors()):
                continue
            text = _plain(each.text_content())
            if text:
                found["og:title"] = text
                return


def _image(root: Any, found: dict[str, str], base: str) -> None:
    image = found.pop("og:image", None) or found.pop("og:image:url", None)
    secure = found.pop("og:image:secure_url", None)
    for each in (image, secure, *_icons(root)):
        url = _joined(base, each) if each else None
        if url is not None:
            found["og:image"] = url
            return


def _icons(root: Any) -> Iterator[str]:
    for each in root.iter("link"):
        kinds = (each.get("rel") or "").lower().split()
        if "image_src" in kinds or "apple-touch-icon" in kinds:
            yield each.get("href") or ""


def _joined(base: str, href: str) -> str | None:
    try:
        url = urljoin(base, _plain(href, 2048))
    except ValueError:
        return None
    return url if url.startswith(("http://", "https://")) else None


def _text_of(root: Any) -> str:
    """The first text that a reader would see."""
    from lxml.etree import iterwalk

    body = next(iter(root.iter("body")), None)
    if body is None:
        return ""
    parts: list[str] = []
    length = 0
    walk: Any = iterwalk(body, events=("start", "end"))
    for kind, element in walk:
        if kind == "start":
            if element.tag in _NO_TEXT:
                walk.skip_subtree()
                continue
            text = element.text
        else:
            text = element.tail
            if element.tag in _BLOCKS:
                parts.append("\n")
        if text and not text.isspace():
            parts.append(text)
            length += len(text)
            if length > 4 * MAX_TEXT:
                break
    lines = (_plain(line) for line in "".join(parts).split("\n"))
    return _first([line for line in lines if line])


def _first(lines: list[str]) -> str:
    text = ""
    for line in lines:
        if len(text) >= _MIN_DESCRIPTION:
            break
        text = f"{text}\n{line}" if text else line
    return _shortened(text, MAX_TEXT)


def _plain(text: str, most: int = MAX_TEXT) -> str:
    """One line without characters that are not seen or turn the text around."""
    return _shortened(_SPACE.sub(" ", _CONTROLS.sub(" ", text[: most * 4])).strip(), most)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
