"""What an event does to unread counts, decided once when it is appended.

1. An event has a class for everybody in the room: silent, notifying, or highlighting. The room
   keeps running totals of the classes, so that a message costs no row per member.
2. A user's volume of the room (`homeserver.core.push_volume`) is taken into account when counts
   are read: muting a room costs nothing when a message is sent.
3. Users for whom class and volume do not say it get a mark: those who are mentioned or invited,
   exceptional ones, whose rulesets are evaluated for each event, and of those who follow threads
   (MSC4306) the ones to whom an event in a thread is something else.

A user's count is then: total now - total at what they have read, corrected by their marks. The
main timeline and threads are counted apart; `storage.unread` reads the counts.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from homeserver.cache import Cache
from homeserver.core import push_rules
from homeserver.core.event import Event
from homeserver.core.power_levels import NOTIFICATION_DEFAULT, PowerLevels
from homeserver.core.push_conditions import PushEvent
from homeserver.core.push_rules import EventClass, Ruleset, class_of
from homeserver.core.push_volume import CALL, Volume, heard, must_judge, volume
from homeserver.rooms.draft import CREATE, RoomDraft
from homeserver.rooms.invite_blocking import Invites
from homeserver.rooms.relations import relation_of
from storage import memberships, thread_subscriptions, unread
from storage import push_rules as stored_rules
from storage.events import EventRow
from storage.transaction import Transaction
from storage.unread import Mark

_POWER = ("m.room.power_levels", "")
_MEMBER = "m.room.member"
_LOOKED_INTO = frozenset({"m.mentions", "m.relates_to"})
"""Keys of a content by which messages of a type differ to the default rules."""


class Listener(NamedTuple):
    """A joined user of this server whose ruleset is evaluated for events of a room."""

    ruleset: Ruleset
    displayname: str | None
    volume: Volume
    judges_all: bool
    judges_calls: bool

    @classmethod
    def of(cls, ruleset: Ruleset, displayname: str | None, room_id: str) -> Listener:
        return cls(
            ruleset,
            displayname,
            volume(ruleset, room_id),
            must_judge(ruleset, room_id, ""),
            must_judge(ruleset, room_id, CALL),
        )


@dataclass(frozen=True, slots=True)
class Crowd:
    """The exceptional users of a room while its state is that of `state_version`."""

    state_version: int
    member_count: int
    listeners: Mapping[str, Listener]
    users: frozenset[str]
    """All exceptional users: also those whose rules are about other rooms."""


NOBODY: Mapping[str, Listener] = {}


class Crowds:
    """Remembers which rooms have exceptional users: most have none, and then nothing is read.

    A change of membership makes another `state_version`; a change of push rules arrives as an
    invalidation. Used from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._crowds: Cache[int, Crowd] = Cache("crowds", _crowd_size, share=0.1)
        self.caches = (self._crowds,)
        self._generation = 0

    def find(self, txn: Transaction, drafts: Sequence[RoomDraft]) -> dict[int, Crowd]:
        """The crowds of the rooms as they were before the drafts, by room number."""
        found: dict[int, Crowd] = {}
        wanted: dict[int, RoomDraft] = {}
        with self._lock:
            generation = self._generation
            for draft in drafts:
                crowd = self._crowds.get(draft.row.room_nid)
                if crowd is not None and crowd.state_version == draft.stored_version:
                    found[draft.row.room_nid] = crowd
                elif not draft.is_new:
                    wanted[draft.row.room_nid] = draft
        if not wanted:
            return found
        loaded = _load(txn, wanted)
        with self._lock:
            if self._generation == generation:
                for room_nid, crowd in loaded.items():
                    self._crowds[room_nid] = crowd
        return found | loaded

    def rules_changed(self, user_id: str) -> None:
        """The rules of a user who was exceptional before, and still is, have changed."""
        with self._lock:
            self._generation += 1
            stale = [nid for nid, crowd in self._crowds.items() if user_id in crowd.users]
            for room_nid in stale:
                self._crowds.pop(room_nid)

    def clear(self) -> None:
        """Anything may have changed."""
        with self._lock:
            self._generation += 1
            self._crowds.clear()


def _crowd_size(room_nid: int, crowd: Crowd) -> int:
    # Rulesets are kept by `storage.push_rules`, which shares them among rooms.
    return 350 + 100 * len(crowd.users) + 350 * len(crowd.listeners)


def _load(txn: Transaction, drafts: Mapping[int, RoomDraft]) -> dict[int, Crowd]:
    listeners: dict[int, dict[str, Listener]] = {}
    users: dict[int, set[str]] = {}
    for room_nid, ruleset, displayname in stored_rules.exceptional_members(txn, drafts):
        users.setdefault(room_nid, set()).add(ruleset.user_id)
        listener = Listener.of(ruleset, displayname, drafts[room_nid].row.room_id)
        if listener.judges_calls:
            listeners.setdefault(room_nid, {})[ruleset.user_id] = listener
    return {
        room_nid: Crowd(
            draft.stored_version,
            memberships.counts(txn, room_nid).get("join", 0) if room_nid in listeners else 0,
            listeners.get(room_nid, NOBODY),
            frozenset(users.get(room_nid, ())),
        )
        for room_nid, draft in drafts.items()
    }


class Judgement(NamedTuple):
    """What an event does: its class, and to whom it does something else."""

    event_class: EventClass
    told: dict[str, EventClass]


def judge(txn: Transaction, crowds: Crowds, drafts: Sequence[RoomDraft]) -> dict[str, Judgement]:
    """Judge all events that the drafts added, by event ID.

    To be called before the drafts are written: what is stored is the state before them.
    """
    found = crowds.find(txn, drafts)
    judged: dict[str, Judgement] = {}
    for draft in drafts:
        judged |= _Room(txn, draft, found.get(draft.row.room_nid)).judge()
    return judged


def add_marks(txn: Transaction, rows: Sequence[EventRow], judged: Mapping[str, Judgement]) -> None:
    """Store what the events do to single users. `rows` have their positions."""
    marks = [
        Mark(user_id, row.room_nid, row.pos, row.thread_root, int(told > 0), int(told > 1))
        for row in rows
        for user_id, told in judged[row.event_id].told.items()
        if row.pos is not None
    ]
    if marks:
        unread.add_marks(txn, marks)


class _Room:
    """Judges the events that one draft added."""

    def __init__(self, txn: Transaction, draft: RoomDraft, crowd: Crowd | None) -> None:
        self._txn = txn
        self._draft = draft
        self._suffix = ":" + draft.server_name
        changed = self._changed_members()
        others = stored_rules.get_many(txn, [user for user, now in changed.items() if now])
        self._changed = changed
        self._invited = others
        """Rules of those whom the draft invites, and others whom it makes members."""
        self._listeners: dict[str, Listener] = dict(crowd.listeners if crowd else NOBODY)
        self._member_count = crowd.member_count if crowd else 0
        if changed:
            self._follow(changed, others)

    def _changed_members(self) -> dict[str, str | None]:
        """Local users whose membership the draft changed, with the new one; None: they left."""
        found: dict[str, str | None] = {}
        for event_type, user_id in self._draft.changed:
            if event_type == _MEMBER and user_id.endswith(self._suffix):
                event = self._draft.known.get((event_type, user_id))
                now = event.membership if event is not None else None
                found[user_id] = now if now in ("join", "invite") else None
        return found

    def _follow(self, changed: Mapping[str, str | None], rules: Mapping[str, Ruleset]) -> None:
        for user_id, now in changed.items():
            if now != "join":
                self._listeners.pop(user_id, None)
            elif user_id in rules:
                event = self._draft.known[(_MEMBER, user_id)]
                name = event.content.get("displayname") if event is not None else None
                self._listeners[user_id] = Listener.of(
                    rules[user_id],
                    name if isinstance(name, str) else None,
                    self._draft.row.room_id,
                )
        if self._listeners:
            self._member_count = self._count_members()

    def _count_members(self) -> int:
        count = 0
        if not self._draft.is_new:
            room_nid = self._draft.row.room_nid
            count = memberships.counts(self._txn, room_nid).get("join", 0)
        for key, before in self._draft.changed.items():
            if key[0] == _MEMBER:
                after = self._draft.known.get(key)
                count += _is_join(after) - _is_join(before)
        return count

    def judge(self) -> dict[str, Judgement]:
        kinds: dict[tuple[str, str | None], EventClass] = {}
        judged: dict[str, Judgement] = {}
        others = []
        for new in self._draft.added:
            kind = None if self._listeners else _kind_of(new.event)
            if kind is None:
                others.append(new.event)
                continue
            found = kinds.get(kind)
            if found is None:
                found = kinds[kind] = push_rules.event_class(self._question(new.event))
            judged[new.event.event_id] = Judgement(found, {})
        return judged | self._judge_each(others) if others else judged

    def _judge_each(self, events: Sequence[Event]) -> dict[str, Judgement]:
        threads = _Threads(self._txn, self._draft)
        asked = {event.event_id: self._question(event) for event in events}
        mentioned = {
            event_id: self._local(push_rules.highlighted_users(question))
            for event_id, question in asked.items()
        }
        joined = self._joined({user for users in mentioned.values() for user in users})
        judged = {}
        for event in events:
            question = asked[event.event_id]
            judgement = Judgement(push_rules.event_class(question), {})
            if judgement.event_class < EventClass.HIGHLIGHT:
                for user_id in mentioned[event.event_id]:
                    if user_id in joined:
                        judgement.told[user_id] = EventClass.HIGHLIGHT
            if event.type == _MEMBER:
                self._invite(question, judgement)
            if self._listeners:
                self._listen(event, question, judgement, threads)
            if threads.displaynames:
                self._tell_followers(event, question, judgement, threads)
            judged[event.event_id] = judgement
        return judged

    def _question(self, event: Event) -> PushEvent:
        """What push rules are asked about an event that is being added to the room."""
        mentions = event.content.get("m.mentions")
        rings_room = isinstance(mentions, dict) and mentions.get("room") is True
        power = self._power() if rings_room or self._listeners else None
        fields = event.pdu if "room_id" in event.pdu else {**event.pdu, "room_id": event.room_id}
        return PushEvent(
            fields,
            member_count=self._member_count,
            sender_power_level=power.user_level(event.sender) if power else 0,
            notification_level=power.notification if power else _default_level,
        )

    def _power(self) -> PowerLevels | None:
        state = self._draft.state([CREATE, _POWER])
        if CREATE not in state:
            return None
        return PowerLevels.of(state.get(_POWER), state[CREATE])

    def _local(self, user_ids: Sequence[str]) -> list[str]:
        return [user_id for user_id in user_ids if user_id.endswith(self._suffix)]

    def _joined(self, user_ids: set[str]) -> set[str]:
        unchanged = user_ids - self._changed.keys()
        found = {user_id for user_id in user_ids if self._changed.get(user_id) == "join"}
        if unchanged and not self._draft.is_new:
            rows = memberships.get_many(self._txn, self._draft.row.room_nid, unchanged)
            found |= {user_id for user_id, row in rows.items() if row.membership == "join"}
        return found

    def _invite(self, question: PushEvent, judgement: Judgement) -> None:
        user_id = question.fields.get("state_key")
        if not isinstance(user_id, str):
            return
        if not user_id.endswith(self._suffix) or self._changed.get(user_id) != "invite":
            return
        if Invites(self._txn, user_id).hides(str(question.fields.get("sender"))):
            return
        ruleset = self._invited.get(user_id, Ruleset(user_id))
        told = class_of(ruleset.evaluate(question))
        if told:
            judgement.told[user_id] = told

    def _listen(
        self, event: Event, question: PushEvent, judgement: Judgement, threads: _Threads
    ) -> None:
        shared: dict[int, bool] = {}
        is_call = event.type == CALL
        for user_id, listener in self._listeners.items():
            if user_id == event.sender or not (is_call or listener.judges_all):
                continue
            question.follows = threads.follows(user_id, event)
            told = class_of(listener.ruleset.evaluate(question, listener.displayname, shared))
            if told != heard(listener.volume, judgement.event_class):
                judgement.told[user_id] = told
            else:
                judgement.told.pop(user_id, None)

    def _tell_followers(
        self, event: Event, question: PushEvent, judgement: Judgement, threads: _Threads
    ) -> None:
        """What an event in a thread does to those who follow threads."""
        room_id = self._draft.row.room_id
        shared: dict[int, bool] = {}
        for user_id, ruleset in threads.rulesets(event).items():
            if user_id == event.sender or user_id in self._listeners:
                continue
            question.follows = threads.follows(user_id, event)
            told = class_of(ruleset.evaluate(question, threads.displaynames[user_id], shared))
            by_volume = heard(volume(ruleset, room_id), judgement.event_class)
            # What was decided stays so if the volume changes.
            if told == by_volume == judgement.event_class:
                judgement.told.pop(user_id, None)
            else:
                judgement.told[user_id] = told


class _Threads:
    """Who follows the threads that the events of a draft are in."""

    def __init__(self, txn: Transaction, draft: RoomDraft) -> None:
        self.displaynames: dict[str, str | None] = {}
        self._roots: dict[str, str] = {}
        self._rulesets: dict[str, Ruleset] = {}
        self._followed: set[tuple[str, str]] = set()
        for new in draft.added:
            relation = relation_of(new.event)
            if relation is not None and relation.thread_root is not None:
                self._roots[new.event.event_id] = relation.thread_root
        if not self._roots or draft.is_new:
            return
        self.displaynames = thread_subscriptions.followers(txn, draft.row.room_nid)
        if not self.displaynames:
            return
        changed = stored_rules.get_many(txn, self.displaynames)
        self._rulesets = {user: changed.get(user) or Ruleset(user) for user in self.displaynames}
        self._followed = thread_subscriptions.followed(
            txn, self.displaynames, draft.row.room_id, set(self._roots.values())
        )

    def rulesets(self, event: Event) -> Mapping[str, Ruleset]:
        """The rules of those who follow threads, if the event is in one."""
        return self._rulesets if event.event_id in self._roots else {}

    def follows(self, user_id: str, event: Event) -> bool | None:
        """See `PushEvent.follows`."""
        root = self._roots.get(event.event_id)
        if root is None or user_id not in self.displaynames:
            return None
        return (user_id, root) in self._followed


def _kind_of(event: Event) -> tuple[str, str | None] | None:
    """What the default rules ask of a message that mentions nobody and relates to nothing: they
    say the same of all such messages of a room. None for another event."""
    content = event.content
    message_type = content.get("msgtype")
    if (
        event.state_key is not None
        or event.type == _MEMBER
        or not _LOOKED_INTO.isdisjoint(content)
        or not (message_type is None or type(message_type) is str)
    ):
        return None
    return event.type, message_type


def _is_join(event: Event | None) -> bool:
    return event is not None and event.membership == "join"


def _default_level(key: str) -> int:
    return NOTIFICATION_DEFAULT
