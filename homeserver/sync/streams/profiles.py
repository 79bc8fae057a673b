"""Profiles in sync (MSC4429, MSC4262): of users of this server who share a room with the user.

What other servers' users have in their profiles is not told to this server when it changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from homeserver.core.types import JsonObject
from homeserver.sync.request import Snapshot
from homeserver.sync.streams import device_lists
from storage import profile_changes, profiles
from storage.user_news import is_after

MAX_USERS = 5000
"""Profiles that a new client is sent."""

Fields = frozenset[str] | None
"""Names of fields; None: all."""


class Change(NamedTuple):
    """What is new of a profile: fields with their values, and names of those that are gone."""

    updated: Mapping[str, Any]
    removed: Collection[str]


Changes = dict[str, Change | None]
"""By user; None: the user shares no room with them any more."""


def current(snapshot: Snapshot, user_ids: Collection[str], fields: Fields) -> Changes:
    """What users have in their profiles now; those with nothing are left out."""
    if fields is None:
        found = profiles.get_all(snapshot.txn, user_ids)
    else:
        found = profiles.get_profiles(snapshot.txn, user_ids, fields)
    return {user_id: Change(profile, ()) for user_id, profile in found.items()}


def everybody(snapshot: Snapshot, fields: Fields) -> Changes:
    """The profiles of all whom a new client is to know."""
    user_id = snapshot.request.user_id
    users = profile_changes.neighbours(snapshot.txn, user_id, MAX_USERS)
    return current(snapshot, users | {user_id}, fields)


def changes(snapshot: Snapshot, since: int, fields: Fields) -> Changes:
    """What is new since a position: of profiles, and of who shares a room with the user."""
    found: Changes = {}
    newest, user_id = snapshot.newest, snapshot.request.user_id
    if is_after(newest.anybodys_membership, since):
        came, went = device_lists.moved(snapshot.txn, user_id, since, snapshot.now)
        found |= dict.fromkeys(went)
        found |= current(snapshot, came, fields)
    if not is_after(newest.profiles, since):
        return found
    changed = profile_changes.around(snapshot.txn, user_id, since, snapshot.now)
    if fields is not None:
        changed = {user: names & fields for user, names in changed.items() if names & fields}
    names = frozenset().union(*changed.values()) if changed else frozenset()
    now = profiles.get_profiles(snapshot.txn, changed, names)
    for user, of_user in changed.items():
        has = now.get(user, {})
        old = found.get(user)
        updated = {name: has[name] for name in of_user if name in has}
        removed = [name for name in sorted(of_user) if name not in has]
        found[user] = Change({**(old.updated if old else {}), **updated}, removed)
    return found


def for_sync(snapshot: Snapshot) -> JsonObject:
    """The section of `/sync`, by user (MSC4429); empty: there is nothing new."""
    fields, since = snapshot.request.filter.profile_fields, snapshot.request.since
    if not fields:
        return {}
    found = everybody(snapshot, fields) if since is None else changes(snapshot, since, fields)
    return {user_id: {"profile_updates": _updates(each)} for user_id, each in found.items()}


def _updates(change: Change | None) -> JsonObject | None:
    return None if change is None else {**change.updated, **dict.fromkeys(change.removed)}


def for_sliding(found: Changes) -> JsonObject:
    """The form of sliding sync, by user (MSC4262)."""
    return {user_id: _parts(each) for user_id, each in found.items()}


def _parts(change: Change | None) -> JsonObject | None:
    if change is None:
        return None
    answer: JsonObject = {}
    if change.updated:
        answer["updated"] = change.updated
    if change.removed:
        answer["removed"] = list(change.removed)
    return answer
