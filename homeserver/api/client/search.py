"""Searching (Client-server API, "Server Side Search")."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.core.filters import NO_ROOM_EVENT_FILTER, parse_room_event_filter
from homeserver.core.texts import KINDS
from homeserver.core.types import JsonObject
from homeserver.rooms.search import ContextWanted, Search, SearchWanted
from homeserver.rooms.search_tokens import SearchToken
from homeserver.web.endpoint import Auth, Requester, endpoint

Key = Literal["content.body", "content.name", "content.topic"]
Count = Annotated[int, msgspec.Meta(ge=0)]


class SearchQuery(msgspec.Struct, frozen=True):
    next_batch: str | None = None


class ContextOptions(msgspec.Struct, frozen=True):
    before_limit: Count = 5
    after_limit: Count = 5
    include_profile: bool = False


class Grouping(msgspec.Struct, frozen=True):
    key: Literal["room_id", "sender"]


class Groupings(msgspec.Struct, frozen=True):
    group_by: list[Grouping] = []


class RoomEvents(msgspec.Struct, frozen=True):
    search_term: str
    keys: list[Key] | None = None
    filter: JsonObject | None = None
    order_by: Literal["rank", "recent"] = "rank"
    event_context: ContextOptions | None = None
    include_state: bool = False
    groupings: Groupings = Groupings()


class Categories(msgspec.Struct, frozen=True):
    room_events: RoomEvents | None = None


class SearchBody(msgspec.Struct, frozen=True):
    search_categories: Categories


class SearchAnswer(msgspec.Struct, frozen=True):
    search_categories: JsonObject


@endpoint("POST", "/_matrix/client/v3/search", auth=Auth.ACCESS_TOKEN, rate="read")
async def search(
    requester: Requester, body: SearchBody, query: SearchQuery, search: Search
) -> SearchAnswer:
    """Find events by their words."""
    asked = body.search_categories.room_events
    if asked is None:
        return SearchAnswer({})
    recent = asked.order_by == "recent"
    options, token = asked.event_context, query.next_batch
    wanted = SearchWanted(
        term=asked.search_term,
        kinds=frozenset(KINDS[key] for key in (KINDS if asked.keys is None else asked.keys)),
        filter=NO_ROOM_EVENT_FILTER
        if asked.filter is None
        else parse_room_event_filter(asked.filter),
        recent=recent,
        context=None
        if options is None
        else ContextWanted(options.before_limit, options.after_limit, options.include_profile),
        include_state=asked.include_state,
        group_by=tuple(dict.fromkeys(each.key for each in asked.groupings.group_by)),
        token=SearchToken.parse(token, recent=recent) if token else None,
    )
    return SearchAnswer({"room_events": await search.search(requester, wanted)})


ENDPOINTS = [search]
