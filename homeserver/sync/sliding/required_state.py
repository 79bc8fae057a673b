"""Which state events a client wants of a room (`required_state`, MSC4186).

Pairs of type and state key, either of which may be `*`. Of member events, `$ME` is the user's own
and `$LAZY` are those that one needs to show the timeline. Where members are lazy, a `*` for the
type does not mean them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from homeserver.core.types import StateKey

MEMBER = "m.room.member"
ANY, ME, LAZY = "*", "$ME", "$LAZY"


@dataclass(frozen=True)
class RequiredState:
    """Pairs in a form in which the union of two is what either of them wants."""

    pairs: frozenset[StateKey] = frozenset()

    @classmethod
    def of(cls, pairs: Iterable[StateKey], user_id: str) -> RequiredState:
        """What a client asks for; `user_id` is the client's."""
        found = {(kind, user_id if key == ME else key) for kind, key in pairs}
        if (ANY, ANY) in found and (MEMBER, LAZY) not in found:
            found.add((MEMBER, ANY))
        return cls(frozenset(found))

    def __or__(self, other: RequiredState) -> RequiredState:
        return self if other.pairs <= self.pairs else RequiredState(self.pairs | other.pairs)

    @cached_property
    def is_lazy(self) -> bool:
        """Whether members come with the events that they sent."""
        return (MEMBER, LAZY) in self.pairs and (MEMBER, ANY) not in self.pairs

    @cached_property
    def keys(self) -> frozenset[StateKey]:
        """The pairs without a wildcard."""
        return frozenset(
            (kind, key)
            for kind, key in self.pairs
            if kind != ANY and key != ANY and (kind, key) != (MEMBER, LAZY)
        )

    @cached_property
    def types(self) -> frozenset[str]:
        """The types of which everything is wanted."""
        return frozenset(kind for kind, key in self.pairs if key == ANY and kind != ANY)

    @cached_property
    def any_types(self) -> frozenset[str]:
        """The state keys that are wanted of every type."""
        return frozenset(key for kind, key in self.pairs if kind == ANY)

    def matches(self, event_type: str, state_key: str) -> bool:
        """Whether an event is wanted whatever the timeline shows."""
        if (event_type, state_key) in self.keys or event_type in self.types:
            return True
        if state_key in self.any_types:
            return True
        return ANY in self.any_types and event_type != MEMBER

    def beyond(self, other: RequiredState) -> RequiredState:
        """The pairs that are not in the other one."""
        return RequiredState(self.pairs - other.pairs)
