"""Withholding files from everybody, and removing them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from twisted.internet.interfaces import IReactorTime

from homeserver.media.files import MediaFiles
from storage import media, media_contents, media_references, media_thumbnails
from storage.database import Database
from storage.media import MediaRow
from storage.media_thumbnails import Form
from storage.transaction import Transaction

AT_ONCE = 100
"""Files in one transaction."""

SCANNER = "the scanner"
"""Who blocks what the scanner finds harmful."""


class MediaRemoval:
    """Removes files, for administrators and by itself."""

    def __init__(
        self, db: Database, files: MediaFiles, clock: IReactorTime, server_name: str
    ) -> None:
        self._db = db
        self._files = files
        self._clock = clock
        self._server_name = server_name

    async def delete(self, rows: Sequence[MediaRow]) -> int:
        """Remove files by their rows; how many bytes they had."""
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            await self._files.remove(await self._db.write(_delete, part))
        return sum(row.size for row in rows)

    async def delete_thumbnails(self, forms: Sequence[Form]) -> None:
        """Remove thumbnails, which can be made again."""
        for start in range(0, len(forms), AT_ONCE):
            part = forms[start : start + AT_ONCE]
            await self._files.remove(await self._db.write(_delete_thumbnails, part))

    async def delete_all(
        self,
        find: Callable[[Transaction], list[MediaRow]],
        enough: Callable[[int], bool] = lambda freed: False,
    ) -> list[MediaRow]:
        """Remove what `find` finds, again and again until it finds nothing or so many bytes are
        `enough`; what was removed."""
        removed: list[MediaRow] = []
        freed = 0
        while not enough(freed):
            found = await self._db.read(find)
            if not found:
                break
            part: list[MediaRow] = []
            for row in found:
                if enough(freed):
                    break
                part.append(row)
                freed += row.size
            await self.delete(part)
            removed += part
        return removed

    async def quarantine(
        self, names: Collection[tuple[str, str]], by: str | None, *, even_protected: bool
    ) -> int:
        """Withhold files, or give them again if `by` is None; how many changed."""
        return await self._db.write(
            media.quarantine, sorted(names), by, even_protected=even_protected
        )

    async def block(self, sha256: str, by: str) -> int:
        """Withhold a content under all its names, also when it comes again; how many names."""
        now = int(self._clock.seconds() * 1000)
        return await self._db.write(_block, sha256, by, now)

    async def unblock(self, sha256: str) -> bool:
        """Undo `block`; whether it was blocked."""
        return await self._db.write(_unblock, sha256)

    async def quarantine_user(self, user_id: str, by: str) -> int:
        """Withhold all files of a user; how many. Protected ones are spared."""
        return await self._each_of_user(user_id, by)

    async def _each_of_user(self, user_id: str, by: str) -> int:
        changed, last = 0, ("", "")
        while rows := await self._db.read(media.after, *last, AT_ONCE, user_id):
            found = [(row.server_name, row.media_id) for row in rows]
            changed += await self.quarantine(found, by, even_protected=False)
            last = found[-1]
        return changed

    async def in_room(self, room_nid: int) -> list[tuple[str, str]]:
        """Files (server, ID) that events of a room name."""
        found: list[tuple[str, str]] = []
        last = ("", "")
        while part := await self._db.read(media_references.in_room, room_nid, last, 1000):
            found += part
            last = part[-1]
        return found


def _delete(txn: Transaction, rows: Sequence[MediaRow]) -> list[str]:
    # In one order, so that two who delete do not wait for each other in a circle.
    names = [name for row in sorted(rows, key=_name) for name in media.delete(txn, row)]
    media_references.forget(txn, [_name(row) for row in rows if row.kind == media.LOCAL])
    return names


def _name(row: MediaRow) -> tuple[str, str]:
    return row.server_name, row.media_id


def _delete_thumbnails(txn: Transaction, forms: Sequence[Form]) -> list[str]:
    names = [media_thumbnails.delete(txn, form) for form in sorted(forms)]
    return [name for name in names if name is not None]


def _block(txn: Transaction, sha256: str, by: str, now: int) -> int:
    media_contents.block(txn, sha256, by, now)
    return media.invalidate_hash(txn, sha256)


def _unblock(txn: Transaction, sha256: str) -> bool:
    media.invalidate_hash(txn, sha256)
    return media_contents.unblock(txn, sha256)
