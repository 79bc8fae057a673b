"""Previews of pages that people link to (Client-server API, "Content repository",
`GET preview_url`).

What a page says is kept for a while, its picture as a file of this server. Nothing else of it
goes on to clients.
"""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import structlog
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from federation.client.errors import RemoteError
from federation.client.shared import SharedLookups
from homeserver.cache import Cache
from homeserver.core import media as names
from homeserver.core.errors import MatrixError, forbidden, invalid_param, unrecognized
from homeserver.core.types import JsonObject
from homeserver.media.files import MediaFiles
from homeserver.media.page_facts import embed_link, embedded, facts_of
from homeserver.media.store import StoreError
from homeserver.outbound.pages import BadUrl, DeniedHost, Page, WebPages
from homeserver.semaphore import Semaphore
from storage import media, media_contents, previews
from storage.database import Database
from storage.media import MediaRow
from storage.previews import PreviewRow
from storage.transaction import Transaction

AT_ONCE = 8
"""Pages that a process fetches at a time; more wait."""
MAX_PIXELS = 100_000_000
FAILED_FOR_S = 300
REMEMBER_MS = 30 * 86_400_000
"""For so long it is known what a page said at a time."""
_TIDY_EVERY_S = 3600.0
_ID_BYTES = 18
_PAGES = ("text/html", "application/xhtml+xml")
_PAGE, _IMAGE, _JSON = (
    "text/html, application/xhtml+xml, image/*;q=0.8, */*;q=0.1",
    "image/*",
    "application/json",
)
_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
_TYPES = {**_FORMATS, "MPO": "image/jpeg"}
"""By what Pillow calls a picture; JPEG files of several pictures, as phones make them, are MPO."""
_log = structlog.get_logger(__name__)


class PreviewRules(NamedTuple):
    """`keep_ms` is how long a page is not asked again."""

    server_name: str
    enabled: bool
    keep_ms: int
    authenticated: bool


class _Picture(NamedTuple):
    media_id: str
    properties: JsonObject


class Previews:
    """Makes previews and remembers them."""

    def __init__(
        self,
        db: Database,
        pages: WebPages,
        files: MediaFiles,
        clock: IReactorTime,
        rules: PreviewRules,
    ) -> None:
        self._db = db
        self._pages = pages
        self._files = files
        self._clock = clock
        self._rules = rules
        self._running: SharedLookups[JsonObject] = SharedLookups()
        self._turns = Semaphore(AT_ONCE)
        self._failed: Cache[str, bool] = Cache(
            "previews_failed", share=0.02, lives_s=FAILED_FOR_S, seconds=clock.seconds
        )
        self.caches = (self._failed,)
        self._tidying = LoopingCall(self._tidy)
        self._tidying.clock = clock

    def start(self) -> None:
        """Begin to forget old pages."""
        self._tidying.start(_TIDY_EVERY_S, now=False)

    async def stop(self) -> None:
        """Let go of what is kept."""
        if self._tidying.running:
            self._tidying.stop()
        await self._pages.close()

    async def preview(self, url: str, ts: int | None) -> JsonObject:
        """What a page says of itself, at best as it was at `ts` (milliseconds).

        Raises MatrixError: 400 M_INVALID_PARAM for a bad URL, 403 for a host that is not
        previewed, 404 M_UNRECOGNIZED if none is, 502 if nothing could be had.
        """
        if not self._rules.enabled:
            raise unrecognized()
        address = self._address(url)
        now = self._now()
        moment = now if ts is None else min(ts, now)
        known = await self._db.read(previews.at, address, moment)
        if known is None and moment < now:
            known = await self._db.read(previews.at, address, now)
        if known is not None:
            found: JsonObject = json.loads(known.preview)
            return found
        if address in self._failed:
            raise _not_fetched()
        return await self._running.get(address, lambda: self._fetched(address))

    def _address(self, url: str) -> str:
        try:
            return self._pages.normal(url)
        except DeniedHost as error:
            raise forbidden(str(error)) from None
        except BadUrl as error:
            raise invalid_param(f"url: {error}") from None

    async def _fetched(self, url: str) -> JsonObject:
        await self._turns.acquire()
        try:
            return await self._made(url)
        except (RemoteError, BadUrl) as error:
            _log.info("A page could not be previewed", url=url, reason=str(error))
            self._failed[url] = True
            # Where and why it failed would tell users about the network that the server is in.
            raise _not_fetched() from None
        finally:
            self._turns.release()

    async def _made(self, url: str) -> JsonObject:
        page = await self._pages.fetch(url, _PAGE)
        picture = None
        if page.content_type in _PAGES:
            found = await self._files.threads.run(facts_of, page.body, page.charset, page.url)
            found = await self._with_embedded(page, found)
            image = found.pop("og:image", None)
            for name in [each for each in found if each.startswith("og:image:")]:
                del found[name]  # they tell of the picture there, not of ours
            picture = await self._picture_at(image) if isinstance(image, str) else None
        else:
            found = {}
            picture = await self._kept(page)
            name = unquote(urlsplit(page.url).path).rpartition("/")[2]
            if picture is not None and name:
                found["og:title"] = name[:255].replace("\x00", "")
        if picture is not None:
            found.update(picture.properties)
        await self._remember(url, found, picture)
        return found

    async def _with_embedded(self, page: Page, found: JsonObject) -> JsonObject:
        """What the page says, and where it is silent, its oEmbed description."""
        if "og:title" in found and "og:image" in found:
            return found
        link = await self._files.threads.run(embed_link, page.body, page.charset, page.url)
        if link is None:
            return found
        try:
            answer = await self._pages.fetch(self._pages.normal(link), _JSON)
            more = embedded(json.loads(answer.body))
        except (RemoteError, BadUrl, ValueError, RecursionError):
            return found
        return {**more, **found}

    async def _picture_at(self, url: str) -> _Picture | None:
        """The picture at a URL, kept; None if there is none that can be shown."""
        try:
            page = await self._pages.fetch(self._pages.normal(url), _IMAGE)
        except (RemoteError, BadUrl) as error:
            _log.info("A page's picture could not be fetched", url=url, reason=str(error))
            return None
        return await self._kept(page)

    async def _kept(self, page: Page) -> _Picture | None:
        if page.is_cut:
            return None
        measured = await self._files.threads.run(_measure, page.body)
        if measured is None:
            return None
        content_type, width, height = measured
        media_id = time.strftime("%Y-%m-%d_", time.gmtime(self._clock.seconds()))
        media_id += secrets.token_urlsafe(_ID_BYTES)
        try:
            incoming = await self._files.spool.take(_stream(page.body), len(page.body))
            now = self._now()
            row = MediaRow(
                server_name=self._rules.server_name,
                media_id=media_id,
                kind=media.PREVIEW,
                sha256=incoming.sha256,
                size=incoming.size,
                content_type=content_type,
                filename=names.filename(unquote(urlsplit(page.url).path).rpartition("/")[2]),
                uploader=None,
                created_ts=now,
                last_access_ts=now,
                expires_ts=None,
                authenticated=self._rules.authenticated,
                quarantined_by=None,
                protected=False,
            )
            await self._files.keep(incoming, now, lambda txn: _add(txn, row))
        except (StoreError, OSError, MatrixError) as error:
            _log.info("A page's picture could not be kept", url=page.url, reason=str(error))
            return None
        properties: JsonObject = {
            "og:image": row.uri,
            "og:image:type": content_type,
            "og:image:width": width,
            "og:image:height": height,
            "matrix:image:size": row.size,
        }
        return _Picture(media_id, properties)

    async def _remember(self, url: str, found: JsonObject, picture: _Picture | None) -> None:
        now = self._now()
        row = PreviewRow(
            previews.key_of(url),
            now,
            now + self._rules.keep_ms,
            url,
            json.dumps(found),
            None if picture is None else picture.media_id,
        )
        await self._db.write(previews.add, row)

    async def _tidy(self) -> None:
        before = self._now() - max(REMEMBER_MS, self._rules.keep_ms)
        while await self._db.write(previews.delete_before, before, 1000):
            pass

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _not_fetched() -> MatrixError:
    return MatrixError(502, "M_UNKNOWN", "The page could not be fetched.")


def _add(txn: Transaction, row: MediaRow) -> bool:
    if row.sha256 is None or media_contents.blocked_by(txn, row.sha256) is not None:
        return False
    return media.add(txn, row)


async def _stream(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _measure(body: bytes) -> tuple[str, int, int] | None:
    """Type, width and height of a picture that browsers show; None for anything else."""
    # Not every server shows previews: the library takes some megabytes.
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(body), formats=tuple(_FORMATS)) as image:
            width, height = image.size
            kind: Any = image.format
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
        OverflowError,
    ):
        return None
    if not 0 < width * height <= MAX_PIXELS:
        return None
    return _TYPES[kind], width, height
