"""What administrators see of files, and do to them."""

from __future__ import annotations

from homeserver.core.errors import not_found
from homeserver.media.removal import MediaRemoval
from storage import media, rooms
from storage.database import Database
from storage.media import MediaRow, Usage
from storage.transaction import Transaction

_BATCH = 500


class MediaAdministration:
    """Files for administrators. Methods raise MatrixError 404 for what is not known."""

    def __init__(self, db: Database, removal: MediaRemoval, server_name: str) -> None:
        self.server_name = server_name
        self._db = db
        self._removal = removal

    async def known(self, server_name: str, media_id: str) -> MediaRow:
        """The row of a file."""
        row = await self._db.read(media.get, server_name, media_id)
        if row is None:
            raise not_found("There is no such file.")
        return row

    async def of_room(self, room_id: str) -> tuple[list[str], list[str]]:
        """Files that events of a room name: this server's, and others'."""
        found = await self._names(room_id)
        local: list[str] = []
        remote: list[str] = []
        for server_name, media_id in found:
            part = local if server_name == self.server_name else remote
            part.append(f"mxc://{server_name}/{media_id}")
        return local, remote

    async def _names(self, room_id: str) -> list[tuple[str, str]]:
        nid = await self._db.read(rooms.nid, room_id)
        if nid is None:
            raise not_found("There is no such room.")
        return await self._removal.in_room(nid)

    async def quarantine_room(self, room_id: str, by: str) -> int:
        """Withhold files that events of a room name; how many."""
        found = await self._names(room_id)
        count = 0
        for start in range(0, len(found), _BATCH):
            part = found[start : start + _BATCH]
            count += await self._removal.quarantine(part, by, even_protected=False)
        return count

    async def quarantine(self, server_name: str, media_id: str, by: str | None) -> None:
        """Withhold a file, unless it is protected, or give it again."""
        await self.known(server_name, media_id)
        await self._removal.quarantine([(server_name, media_id)], by, even_protected=by is None)

    async def protect(self, media_id: str, protected: bool) -> None:
        """Shield a file of this server, or no more."""
        if not await self._db.write(media.protect, self.server_name, media_id, protected):
            raise not_found("There is no such file.")

    async def of_user(
        self, user_id: str, order: str, *, backwards: bool, start: int, limit: int
    ) -> tuple[list[MediaRow], int]:
        """Some of the files of a user, and how many there are; see `media.of_user`."""
        return await self._db.read(
            media.of_user, user_id, order, backwards=backwards, start=start, limit=limit
        )

    async def delete_old(self, before: int, larger: int, keep_profiles: bool) -> list[MediaRow]:
        """Remove files of users here that nobody asked for since then; which."""

        def find(txn: Transaction) -> list[MediaRow]:
            return media.old(
                txn,
                media.LOCAL,
                before,
                larger=larger,
                keep_profiles=keep_profiles,
                limit=_BATCH,
            )

        return await self._removal.delete_all(find)

    async def purge_remote(self, before: int) -> int:
        """Drop copies of others' files that nobody asked for since then; how many."""

        def find(txn: Transaction) -> list[MediaRow]:
            return media.least_used(txn, media.REMOTE, before, _BATCH)

        return len(await self._removal.delete_all(find))

    async def usage(
        self,
        order: str,
        *,
        backwards: bool,
        since: int,
        until: int | None,
        search: str | None,
        start: int,
        limit: int,
    ) -> tuple[list[Usage], int]:
        """What users have uploaded: see `media.usage`."""
        return await self._db.read(
            media.usage,
            order,
            backwards=backwards,
            since=since,
            until=until,
            search=search,
            start=start,
            limit=limit,
        )
