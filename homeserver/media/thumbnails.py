"""Small forms of pictures, made when they are first asked for, and kept.

Client-server API, "Thumbnails". Clients ask for all sorts of sizes; only some are made, each at
least as large as what was asked for. They belong to the content, not to the name: a picture sent
twice has them once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IReactorTime

from federation.client.shared import SharedLookups
from homeserver.cache import Cache
from homeserver.core.errors import MatrixError, invalid_param, not_found, unavailable, unknown
from homeserver.core.types import JsonObject
from homeserver.media.files import MediaFiles
from homeserver.media.picture_workers import PictureWorkers
from homeserver.media.spool import Incoming
from homeserver.media.store import FileMissing, StoreError
from homeserver.media.usage import Usage
from homeserver.semaphore import Semaphore
from storage import media, media_contents, media_thumbnails
from storage.database import Database
from storage.media import Found
from storage.media_thumbnails import Form, Thumbnail
from storage.transaction import Transaction

Method = Literal["crop", "scale"]

SIZES = ((32, 32), (96, 96), (320, 240), (640, 480), (800, 600))
"""Boxes for scaling ("Thumbnails")."""
SIDES = (32, 96, 160, 240, 320, 480, 640, 800)
"""Longer sides for cropping."""
GIVEN_UP_FOR_S = 600.0
"""A picture that took too long is not tried again for so long."""
_GRID = 16
"""The shorter side of what is cropped is rounded up to a multiple of this."""


class Size(NamedTuple):
    """What a client asks for, in pixels."""

    width: int
    height: int
    method: Method
    animated: bool


class PictureLimits(NamedTuple):
    """Of one picture: see `config.model.media.Thumbnails`."""

    max_pixels: int
    max_frames: int


def form_for(source: str, size: Size) -> Form:
    """The form that is made for what was asked for. Raises MatrixError (400)."""
    if size.width < 1 or size.height < 1:
        raise invalid_param("width and height must be at least 1.")
    if size.method == "crop":
        width, height = _cropped(size.width, size.height)
    else:
        width, height = next(
            (box for box in SIZES if box[0] >= size.width and box[1] >= size.height), SIZES[-1]
        )
    return Form(source, width, height, size.method, size.animated)


def _cropped(width: int, height: int) -> tuple[int, int]:
    """In the proportions that were asked for."""
    longer = next((side for side in SIDES if side >= max(width, height)), SIDES[-1])
    shorter = min(width, height) * longer / max(width, height)
    rounded = min(longer, max(_GRID, -int(-shorter // _GRID) * _GRID))
    return (longer, rounded) if width >= height else (rounded, longer)


class Thumbnails:
    """Makes thumbnails. All methods raise MatrixError."""

    def __init__(
        self,
        db: Database,
        files: MediaFiles,
        workers: PictureWorkers,
        usage: Usage,
        clock: IReactorTime,
        limits: PictureLimits,
    ) -> None:
        self._db = db
        self._files = files
        self._workers = workers
        self._usage = usage
        self._clock = clock
        self._limits = limits
        self._making: SharedLookups[Thumbnail] = SharedLookups()
        self._turns: WeakValueDictionary[str, Semaphore] = WeakValueDictionary()
        self._given_up: Cache[tuple[str, bool], bool] = Cache(
            "thumbnails_given_up", share=0.02, lives_s=GIVEN_UP_FOR_S, seconds=clock.seconds
        )
        self.caches = (self._given_up,)

    async def of(self, found: Found, size: Size) -> Thumbnail:
        """A thumbnail of a file. 400 for what is no picture, 413 (502 for another server's file)
        for a picture that is too large."""
        row = found.row
        assert row.sha256 is not None and found.store_name is not None
        form = form_for(row.sha256, size)
        known = await self._db.query(media_thumbnails.find, form)
        if known is None:
            known = await self._making.get(repr(form), lambda: self._in_turn(found, form))
        self._usage.seen_thumbnail(form)
        return known

    async def _in_turn(self, found: Found, form: Form) -> Thumbnail:
        """Make the sizes of one picture one after the other: one that takes too long keeps one
        process busy, once."""
        turn = self._turns.setdefault(form.source, Semaphore(1))
        await turn.acquire()
        try:
            if (form.source, form.animated) in self._given_up:
                raise _refusal("timeout", is_remote=found.row.kind == media.REMOTE)
            return await self._made(found, form)
        finally:
            turn.release()

    async def adopt(self, incoming: Incoming, form: Form) -> Thumbnail:
        """A thumbnail that another server made, looked at and made anew where needed."""
        target = self._files.spool.new_path()
        answer = await self._asked(incoming.path, target, form)
        if "error" in answer:
            incoming.discard()
            self._files.spool.remove(target)
            raise _refusal(answer["error"], is_remote=True)
        if answer.get("original"):
            return await self._keep(incoming, form, answer["content_type"])
        incoming.discard()
        return await self._keep(await self._files.spool.adopt(target), form, answer["content_type"])

    async def _asked(self, source: Path, target: Path, form: Form) -> JsonObject:
        return await self._workers.run(
            {
                "source": str(source.absolute()),
                "target": str(target.absolute()),
                "width": form.width,
                "height": form.height,
                "method": form.method,
                "animated": form.animated,
                **self._limits._asdict(),
            }
        )

    async def _made(self, found: Found, form: Form) -> Thumbnail:
        assert found.store_name is not None
        target = self._files.spool.new_path()
        try:
            async with self._files.store.local(found.store_name) as path:
                answer = await self._asked(path, target, form)
        except FileMissing as error:
            raise not_found("The file is lost.") from error
        except (StoreError, OSError) as error:
            raise unavailable() from error
        if "error" in answer:
            self._files.spool.remove(target)
            if answer["error"] == "timeout":
                self._given_up[form.source, form.animated] = True
            raise _refusal(answer["error"], is_remote=found.row.kind == media.REMOTE)
        if answer.get("original"):
            return await self._db.write(self._record_original, form, answer["content_type"])
        return await self._keep(await self._files.spool.adopt(target), form, answer["content_type"])

    async def _keep(self, incoming: Incoming, form: Form, content_type: str) -> Thumbnail:
        now = int(self._clock.seconds() * 1000)

        def record(txn: Transaction) -> bool:
            return media_thumbnails.add(
                txn, form, incoming.sha256, incoming.size, content_type, now
            )

        try:
            await self._files.keep(incoming, now, record)
        except StoreError as error:
            raise unavailable() from error
        # Of two processes that made it, one has recorded it.
        made = await self._db.query(media_thumbnails.find, form)
        if made is None:
            raise unavailable()
        return made

    def _record_original(self, txn: Transaction, form: Form, content_type: str) -> Thumbnail:
        """The picture is its own thumbnail."""
        now = int(self._clock.seconds() * 1000)
        content = media_contents.get(txn, form.source)
        if content is None or not media_contents.add_reference(txn, form.source):
            raise not_found("The file is lost.")
        if not media_thumbnails.add(txn, form, form.source, content.size, content_type, now):
            media_contents.release(txn, form.source)
        made = media_thumbnails.find(txn, form)
        assert made is not None
        return made


def _refusal(error: str, *, is_remote: bool) -> MatrixError:
    if error in ("too_large", "timeout"):
        status = 502 if is_remote else 413
        return MatrixError(status, "M_TOO_LARGE", "The picture is too large to be made smaller.")
    if error == "disk":
        return unavailable()
    return unknown("There are no thumbnails of this file.")
