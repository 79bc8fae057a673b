"""Searching users (client-server API, "User Directory").

1. Found are users who share a room with the reader, and those in rooms that everybody may join or
   read; remote users too. That is looked up at the time of the search.
2. Users of this server are found by their profile and their ID, whatever they call themselves in
   single rooms. Of others only the names in rooms are known: those in rooms that the reader could
   look up too.
3. Each word of the search must begin a word of the name or of the ID.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core import words
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.rooted import MEMBER
from homeserver.rooms.write import WrittenRoom
from storage import overviews, profiles, user_words, users
from storage.database import Database
from storage.log_readers import LogReader
from storage.transaction import Transaction

NAME = "users"
DEFAULT_LIMIT = 10
MAX_LIMIT = 50
MAX_WORDS = 100
"""Words by which one user is found."""
MAX_TERMS = 8
"""Words of a search that count."""
_CANDIDATES = 500
_STEP = 1000
_MANY = 100
_STEPS = 20
_RULES, _VISIBILITY = "m.room.join_rules", "m.room.history_visibility"


class Changes(NamedTuple):
    """What is new: users who may be found by other words, and whether rooms are open to
    everybody."""

    users: Collection[str]
    rooms: Mapping[int, bool]


class UserWords(LogReader[Changes]):
    """Notes by which words the users in rooms are found."""

    def __init__(self, db: Database, reactor: IReactorTime, server_name: str) -> None:
        super().__init__(db, reactor, NAME)
        self._suffix = ":" + server_name

    def written(self, room: WrittenRoom) -> None:
        """For `Appender.on_written`."""
        if any(entry.row.type in (MEMBER, _RULES, _VISIBILITY) for entry in room.entries):
            self.wake()

    async def profile_changed(self, user_id: UserID, field: str) -> None:
        """For `UserHooks.profile_changed`: members' events follow, but perhaps not everywhere."""
        if field == "displayname":
            await self._db.write(lambda txn: self._put(txn, [user_id]))

    def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, Changes | None]:
        upto, changed = user_words.changed_users(txn, after, upto, _STEP)
        rooms = sorted(user_words.changed_rooms(txn, after, upto))
        are_open = _openness(txn, rooms)
        known = user_words.open_among(txn, rooms)
        found = Changes(
            # Of many some have changed surely: that is found out once, when it is written.
            changed if len(changed) > _MANY else self._changed(txn, changed).keys(),
            {nid: is_open for nid, is_open in are_open.items() if is_open is not (nid in known)},
        )
        return upto, found if found.users or found.rooms else None

    def write(self, txn: Transaction, found: Changes) -> None:
        # Anew: a name may have changed since, by other ways than the log.
        self._put(txn, found.users)
        user_words.set_open(txn, found.rooms)

    def _put(self, txn: Transaction, user_ids: Collection[str]) -> None:
        words = self._changed(txn, user_ids)
        # Those of local users are written when their profile changes, too.
        local = [user_id for user_id in words if user_id.endswith(self._suffix)]
        user_words.put(txn, words, shared=local)

    def _changed(self, txn: Transaction, user_ids: Collection[str]) -> dict[str, set[str]]:
        """The words of those of the users who have others than are noted."""
        if not user_ids:
            return {}
        names = user_words.joined(txn, user_ids)
        local = [user_id for user_id in names if user_id.endswith(self._suffix)]
        shown = profiles.get_profiles(txn, local, ["displayname"])
        names |= {user_id: _texts(shown.get(user_id, {})) for user_id in local}
        noted = user_words.words_of(txn, user_ids)
        now = {
            user_id: _words_of(user_id, names[user_id]) if user_id in names else set()
            for user_id in user_ids
        }
        return {user_id: found for user_id, found in now.items() if found != noted[user_id]}


class UserDirectory:
    """Finds users."""

    def __init__(self, db: Database, directory: UserWords, server_name: str) -> None:
        self._db = db
        self._directory = directory
        self._suffix = ":" + server_name

    async def search(self, user_id: str, term: str, limit: int) -> tuple[list[JsonObject], bool]:
        """Users as the endpoint shows them, and whether there are more than `limit`."""
        await self._directory.catch_up(_STEPS)
        found = await self._db.read(self._find, user_id, term)
        count = min(limit, MAX_LIMIT)
        return found[:count], len(found) > count

    def _find(self, txn: Transaction, reader_id: str, term: str) -> list[JsonObject]:
        term, server = _split(term)
        terms = _terms(term)
        if not terms:
            return []
        candidates = user_words.find(txn, reader_id, terms, _CANDIDATES)
        candidates = [each for each in candidates if _domain(each).startswith(server)]
        if not candidates:
            return []
        shown = self._shown(txn, reader_id, candidates)
        ranked = []
        folded = words.fold(term)
        for user_id, profile in shown.items():
            name = profile.get("display_name", "")
            if not _begin(terms, _words_of(user_id, [name])):
                continue
            exact = folded in (words.fold(name), words.fold(_localpart(user_id)))
            is_local = user_id.endswith(self._suffix)
            ranked.append((not exact, not is_local, not profile, user_id))
        return [{"user_id": rank[-1], **shown[rank[-1]]} for rank in sorted(ranked)]

    def _shown(
        self, txn: Transaction, reader_id: str, user_ids: Sequence[str]
    ) -> dict[str, JsonObject]:
        """The profiles that the reader sees; closed accounts are left out."""
        local = [user_id for user_id in user_ids if user_id.endswith(self._suffix)]
        active = users.active_among(txn, local)
        own = profiles.get_profiles(txn, local, ["displayname", "avatar_url"])
        shown: dict[str, JsonObject] = {}
        for user_id in active:
            profile = own.get(user_id, {})
            shown[user_id] = _profile(profile.get("displayname"), profile.get("avatar_url"))
        remote = [user_id for user_id in user_ids if not user_id.endswith(self._suffix)]
        if remote:
            for user_id, found in user_words.names_for(txn, reader_id, remote).items():
                named = [each for each in found if each[0]] or found
                shown[user_id] = _profile(*named[0])
        return shown


def _openness(txn: Transaction, room_nids: Sequence[int]) -> dict[int, bool]:
    """Whether everybody may join or read these rooms."""
    found = {}
    for room_nid, texts in overviews.current_texts(txn, room_nids, [_RULES, _VISIBILITY]).items():
        rule = _content(texts.get(_RULES)).get("join_rule")
        shown = _content(texts.get(_VISIBILITY)).get("history_visibility")
        found[room_nid] = rule == "public" or shown == "world_readable"
    return found


def _content(text: str | None) -> dict[str, Any]:
    content = json.loads(text).get("content") if text is not None else None
    return content if isinstance(content, dict) else {}


def _texts(profile: Mapping[str, Any]) -> set[str]:
    name = profile.get("displayname")
    return {name} if isinstance(name, str) else set()


def _words_of(user_id: str, names: Collection[str]) -> set[str]:
    found = dict.fromkeys(words.words(_localpart(user_id)))
    for name in sorted(names):
        found |= dict.fromkeys(words.words(name))
        if len(found) >= MAX_WORDS:
            break
    return set(list(found)[:MAX_WORDS])


def _terms(text: str) -> list[str]:
    """The beginnings of words that are looked for, the longest first."""
    query = words.query(text)
    terms = sorted({*query.words, *query.prefixes}, key=lambda term: (-len(term), term))
    return terms[:MAX_TERMS]


def _begin(terms: Collection[str], found: Collection[str]) -> bool:
    return all(any(word.startswith(term) for word in found) for term in terms)


def _split(term: str) -> tuple[str, str]:
    """What is typed, without the server's name that a user ID ends with; and that."""
    if not term.startswith("@"):
        return term, ""
    localpart, _, server = term[1:].partition(":")
    return localpart, server.casefold()


def _localpart(user_id: str) -> str:
    return user_id[1:].partition(":")[0]


def _domain(user_id: str) -> str:
    return user_id.partition(":")[2].casefold()


def _profile(name: Any, avatar: Any) -> JsonObject:
    profile: JsonObject = {}
    if isinstance(name, str) and name:
        profile["display_name"] = name
    if isinstance(avatar, str) and avatar.startswith("mxc://"):
        profile["avatar_url"] = avatar
    return profile
