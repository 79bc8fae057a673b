"""A room as one append transaction sees it: its head, its state, and the events being added.

The room's row is locked while a draft lives, so what is built here is built on the newest state:
events of this server never race each other and never need state resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.core import auth_rules, errors
from homeserver.core.event import Event
from homeserver.core.event_format import MAX_PREV_EVENTS
from homeserver.core.policy import POLICY
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import encode_base64, reference_hash
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.build import EventTemplate, LocalSigner, Place, build_event, unsigned_pdu
from storage.events import TransactionKey
from storage.rooms import RoomRow

Fetch = Callable[[Collection[StateKey]], Mapping[StateKey, Event]]
"""Reads events of the room's current state from the database."""

CREATE: StateKey = ("m.room.create", "")


Mark = tuple[RoomRow, dict[StateKey, Event | None], int, dict[StateKey, Event | None]]
"""A draft at one moment: row, known state, number of events, changed state."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that passed the rules and waits to be inserted."""

    event: Event
    transaction: TransactionKey | None
    replaces: Event | None
    """The state event that it takes the place of."""


@dataclass(slots=True)
class RoomDraft:
    """See the module. `known` maps keys to current state events, None for "there is none"."""

    row: RoomRow
    version: RoomVersion
    known: dict[StateKey, Event | None]
    fetch: Fetch
    hashes_of: Callable[[Collection[str]], Mapping[str, str]]
    server_name: str
    is_new: bool = False
    added: list[NewEvent] = field(default_factory=list)
    changed: dict[StateKey, Event | None] = field(default_factory=dict)
    """State before this draft of every key that it changed."""
    stored_version: int = field(init=False)
    """`state_version` of the room as it is in the database while the draft lives."""

    def __post_init__(self) -> None:
        self.stored_version = self.row.state_version

    @property
    def pending(self) -> Sequence[Event]:
        """Events that were added."""
        return [new.event for new in self.added]

    def get(self, event_type: str, state_key: str = "") -> Event | None:
        """The current state event of this key, the draft's own events included."""
        return self.state([(event_type, state_key)]).get((event_type, state_key))

    def state(self, keys: Collection[StateKey]) -> dict[StateKey, Event]:
        """Current state events of these keys, the draft's own events included."""
        missing = [key for key in keys if key not in self.known]
        if missing:
            fetched = {} if self.is_new else self.fetch(missing)
            for key in missing:
                self.known[key] = fetched.get(key)
        found: dict[StateKey, Event] = {}
        for key in keys:
            event = self.known[key]
            if event is not None:
                found[key] = event
        return found

    def mark(self) -> Mark:
        """A point to go back to."""
        return self.row, dict(self.known), len(self.added), dict(self.changed)

    def back(self, mark: Mark) -> None:
        """Forget what was added since `mark()`."""
        self.row, self.known, length, self.changed = mark
        del self.added[length:]

    def add(
        self,
        template: EventTemplate,
        signer: LocalSigner,
        now_ms: int,
        transaction: TransactionKey | None = None,
        event_id: str | None = None,
    ) -> Event:
        """Build an event on the head, check it against the state, and make it the new head.

        Raises: as `build`.
        """
        event = self.build(template, signer, now_ms, event_id)
        self._advance(event, transaction)
        return event

    def build(
        self, template: EventTemplate, signer: LocalSigner, now_ms: int, event_id: str | None = None
    ) -> Event:
        """An event on the head that the state allows. The head stays.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` with the rule that it breaks; see also `build_event`.
        """
        state, place = self._placed(template, event_id)
        event = build_event(template, place, signer, now_ms)
        try:
            auth_rules.check(event, state, create=state.get(CREATE))
        except auth_rules.EventRejected as refusal:
            raise errors.forbidden(refusal.reason)
        return event

    def template(self, template: EventTemplate, now_ms: int) -> JsonObject:
        """An event on the head that another server has yet to hash and sign.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` with the rule that it breaks.
        """
        state, place = self._placed(template, None)
        pdu = unsigned_pdu(template, place, now_ms)
        event = Event.from_pdu(pdu, self.version, "$template")
        try:
            auth_rules.check(event, state, create=state.get(CREATE), signed_by=lambda server: True)
        except auth_rules.EventRejected as refusal:
            raise errors.forbidden(refusal.reason)
        return pdu

    def _placed(
        self, template: EventTemplate, event_id: str | None
    ) -> tuple[dict[StateKey, Event], Place]:
        """The state that decides on a new event, and where it goes."""
        creates = template.type == CREATE[0] and template.state_key == ""
        if creates and not self.is_new:
            raise errors.forbidden("A room is created only once.")
        needed = auth_rules.auth_types(
            template.type, template.sender, template.state_key, template.content, self.version
        )
        state = {} if creates else self.state({*needed, CREATE, POLICY})
        extremities = self.row.extremities
        place = Place(
            room_id=self.row.room_id or None,
            version=self.version,
            prev_events=extremities[:MAX_PREV_EVENTS],
            depth=self.row.depth + 1,
            auth_events=[state[key].event_id for key in sorted(needed) if key in state],
            reference_hashes=self._hashes(state, extremities),
            event_id=event_id,
        )
        return state, place

    def _hashes(
        self, state: Mapping[StateKey, Event], extremities: Collection[str]
    ) -> Mapping[str, str]:
        if self.version.event_format != 1:
            return {}
        wanted = {*extremities, *(event.event_id for event in state.values())}
        known = {
            new.event.event_id: encode_base64(reference_hash(new.event.pdu, self.version))
            for new in self.added
            if new.event.event_id in wanted
        }
        missing = wanted - known.keys()
        return {**known, **self.hashes_of(missing)} if missing else known

    def _advance(self, event: Event, transaction: TransactionKey | None) -> None:
        replaces = None
        key = event.key if event.is_state else None
        if key is not None:
            replaces = self.state([key]).get(key)
            self.changed.setdefault(key, replaces)
            self.known[key] = event
        self.added.append(NewEvent(event, transaction, replaces))
        left_over = self.row.extremities[MAX_PREV_EVENTS:]
        self.row = self.row._replace(
            room_id=event.room_id,
            head_version=self.row.head_version + 1,
            depth=event.depth,
            extremities=(*left_over, event.event_id),
        )
