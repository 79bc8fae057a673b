"""What a server that joins a room is told of it: state, auth chain, servers.

Server-server API, `PUT /_matrix/federation/v2/send_join`. A large room has tens of thousands of
events: their stored JSON goes into the answer as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeserver.core import canonical, state_tree
from homeserver.core.types import StateKey
from homeserver.rooms.handshake import Admitted
from homeserver.rooms.projection import STRIPPED_TYPES
from homeserver.rooms.write import federation_text
from storage import auth_chains, events, memberships, state
from storage.auth_chains import AuthChains
from storage.database import Database
from storage.state import StateStore
from storage.transaction import Transaction

MEMBER = "m.room.member"
HEROES = 5
"""Members that a room without a name is called by (client-server API, `m.heroes`)."""
_NAMES = (("m.room.name", ""), ("m.room.canonical_alias", ""))


class JoinAnswers:
    """Reads the answers, in database threads."""

    def __init__(self, db: Database, states: StateStore, chains: AuthChains) -> None:
        self._db = db
        self._states = states
        self._chains = chains

    async def join(self, admitted: Admitted, *, omit_members: bool = False) -> bytes:
        """The JSON object that answers `send_join`.

        Parameters: `omit_members`, leave out members other than the joining one and, where the
        room has no name, those that it is called by.
        """
        return await self._db.read(self._join, admitted, omit_members)

    async def knock(self, admitted: Admitted) -> bytes:
        """The JSON object that answers `send_knock`: events that describe the room."""
        return await self._db.read(self._knock, admitted)

    def _join(self, txn: Transaction, admitted: Admitted, omit_members: bool) -> bytes:
        numbers = self._state_before(txn, admitted)
        omitted = False
        if omit_members:
            kept = self._without_members(txn, admitted, numbers)
            omitted = len(kept) < len(numbers)
            numbers = kept
        state_texts = auth_chains.texts_by_nids(txn, numbers.values())
        start = {*state_texts, admitted.event.event_id}
        chain = self._chains.chain(txn, start, texts=state_texts)
        if omit_members:
            chain -= state_texts.keys()
        missing = chain - state_texts.keys()
        chain_texts = [text for event_id, text in state_texts.items() if event_id in chain]
        chain_texts += auth_chains.texts_of(txn, missing).values()
        parts = [
            '{"auth_chain":[',
            ",".join(chain_texts),
            '],"state":[',
            ",".join(state_texts.values()),
            '],"members_omitted":',
            "true" if omitted else "false",
        ]
        if omitted:
            parts += [',"servers_in_room":', canonical.encode(list(admitted.servers)).decode()]
        if admitted.signed_here:
            parts += [',"event":', federation_text(admitted.event)]
        parts.append("}")
        return "".join(parts).encode()

    def _knock(self, txn: Transaction, admitted: Admitted) -> bytes:
        keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_TYPES]
        rows = state.current(txn, admitted.room_nid, keys)
        texts = [rows[key].json for key in keys if key in rows]
        return f'{{"knock_room_state":[{",".join(texts)}]}}'.encode()

    def _state_before(self, txn: Transaction, admitted: Admitted) -> dict[int, int]:
        """Numbers of the events of the state before the join, by numbers of their state keys."""
        row = events.get(txn, admitted.event.event_id)
        if row is None or row.state_before is None:
            raise ValueError(f"{admitted.event.event_id} has no place in its room")
        load = self._states.loader(txn, row.room_nid)
        return dict(state_tree.items(row.state_before, load))

    def _without_members(
        self, txn: Transaction, admitted: Admitted, numbers: Mapping[int, int]
    ) -> dict[int, int]:
        keys = self._states.keys(txn, numbers)
        user_id = admitted.event.sender
        wanted = {user_id}
        if not any(key in _NAMES for key in keys.values()):
            wanted |= set(_heroes(txn, admitted.room_nid, user_id))
        return {
            number: event_nid
            for number, event_nid in numbers.items()
            if keys[number][0] != MEMBER or keys[number][1] in wanted
        }


def _heroes(txn: Transaction, room_nid: int, user_id: str) -> list[str]:
    """The first others who are joined or invited, else who left."""
    first = memberships.first_others
    present = first(txn, room_nid, user_id, ("join", "invite"), HEROES)
    return present or first(txn, room_nid, user_id, ("leave", "ban"), HEROES)
