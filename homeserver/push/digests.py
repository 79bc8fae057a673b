"""E-mail about missed messages: several events in one message, after some time, and not too often.

What is put together is enqueued as a job of `homeserver.outbound.mail` in the transaction that
takes the events out of the queue: nothing is told twice or lost if a process dies in between.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.internet.interfaces import IReactorTime

from homeserver.core.event import Event
from homeserver.core.types import JsonObject
from homeserver.outbound.mail import Mailer
from homeserver.push.message import NotTold, ToTell, look_up
from homeserver.rooms.room_names import invited_room_name, member_name, room_name
from homeserver.users.pushers import link_token
from storage import push_log, push_queue, pushers, receipts, threepids
from storage.push_queue import Waiting, Work
from storage.pushers import PusherRow
from storage.state import StateStore
from storage.transaction import Transaction

MAX_LOOKED_AT = 200
"""Events that one message is made of; others are only counted."""
MAX_ROOMS = 10
MAX_MESSAGES = 8
"""Of one room."""
MAX_TEXT = 400
EXPIRES_MS = 86_400_000
MAILED, NOTHING, WAITING, GONE = "delivered", "not needed", "waiting", "rejected"

_SAID = {
    "m.image": "sent a picture",
    "m.video": "sent a video",
    "m.audio": "sent a recording",
    "m.file": "sent a file",
    "m.location": "sent a place",
}


class EmailDigests:
    """Makes messages for pushers of kind email.

    Parameters: `base_url`, where this server is reached, for the link that ends them; `pause` and
    `longest_pause` between two messages, in milliseconds.
    """

    def __init__(
        self,
        mailer: Mailer,
        states: StateStore,
        clock: IReactorTime,
        base_url: str,
        pause: int,
        longest_pause: int,
    ) -> None:
        self._mailer = mailer
        self._states = states
        self._clock = clock
        self._base_url = base_url.rstrip("/")
        self._pause = pause
        self._longest = longest_pause

    def serve(self, txn: Transaction, work: Work, pusher: PusherRow, owner: str) -> str:
        """Look after a pusher that is due, and give it back; what was done."""
        now = int(self._clock.seconds() * 1000)
        if not push_queue.holds(txn, work.pusher_nid, owner):
            return WAITING
        if threepids.get_user(txn, "email", pusher.pushkey) != pusher.user_id:
            pushers.delete(txn, [pusher])
            return GONE
        earliest = (pusher.mailed_ts or 0) + (pusher.mail_pause or 0)
        if now < earliest:
            push_queue.finish(txn, work, owner, now, earliest)
            return WAITING
        rows = push_queue.waiting(txn, pusher.pusher_nid, MAX_LOOKED_AT)
        told, entries = self._sorted(txn, pusher, rows, now)
        beyond = push_queue.count_waiting(txn, pusher.pusher_nid) - len(rows)
        if told:
            self._mail(txn, pusher, told, beyond, now)
            pushers.set_mailed(txn, pusher.pusher_nid, now, self._next_pause(txn, pusher))
        push_log.note(txn, entries)
        push_queue.done(txn, pusher.pusher_nid, push_queue.ALL)
        push_queue.finish(txn, work, owner, now, None)
        return MAILED if told else NOTHING

    def _sorted(
        self, txn: Transaction, pusher: PusherRow, rows: list[Waiting], now: int
    ) -> tuple[list[ToTell], list[push_log.Entry]]:
        """What is still to be told, and what becomes of each."""
        told, entries = [], []
        for waiting in rows:
            found = look_up(txn, self._states, pusher.user_id, waiting)
            is_told = not isinstance(found, NotTold)
            entries.append(
                push_log.entry(
                    pusher,
                    waiting.pos,
                    MAILED if is_told else NOTHING,
                    now,
                    detail="put into an e-mail" if is_told else str(found[0]),
                    room_nid=waiting.room_nid,
                    event_id=None if isinstance(found, NotTold) else found.event.event_id,
                )
            )
            if not isinstance(found, NotTold):
                told.append(found)
        return told, entries

    def _next_pause(self, txn: Transaction, pusher: PusherRow) -> int:
        """Longer each time, unless the last message made the user read."""
        if pusher.mailed_ts is None or pusher.mail_pause is None:
            return self._pause
        if receipts.any_since(txn, pusher.user_id, pusher.mailed_ts):
            return self._pause
        return min(max(pusher.mail_pause * 2, self._pause), self._longest)

    def _mail(
        self, txn: Transaction, pusher: PusherRow, told: list[ToTell], beyond: int, now: int
    ) -> None:
        by_room: dict[int, list[ToTell]] = {}
        for item in told:
            by_room.setdefault(item.room.room_nid, []).append(item)
        rooms = [self._room(txn, items) for items in list(by_room.values())[:MAX_ROOMS]]
        count = len(told) + beyond
        shown = sum(len(items) for items in list(by_room.values())[:MAX_ROOMS])
        messages = "1 unread message" if count == 1 else f"{count} unread messages"
        subject = f"{messages} in {len(by_room)} rooms"
        if len(by_room) == 1 and not beyond:
            subject = f"{messages} in {rooms[0]['name']}"
        link = f"{self._base_url}/_synapse/client/unsubscribe?token={link_token(pusher)}"
        values = {
            "subject": subject,
            "count": count,
            "rooms": rooms,
            "more": count - shown,
            "unsubscribe": link,
        }
        headers = {
            "List-Unsubscribe": f"<{link}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
        self._mailer.enqueue_in(
            txn, "missed", pusher.pushkey, values, now + EXPIRES_MS, headers=headers
        )

    def _room(self, txn: Transaction, items: list[ToTell]) -> JsonObject:
        first = items[0]
        if first.member.membership == "invite":
            name = invited_room_name(first.member)
        else:
            name = room_name(txn, first.room.room_nid, first.member.user_id)
        last = items[-MAX_MESSAGES:]
        place = f"{quote(first.room.room_id)}/{quote(last[-1].event.event_id)}"
        return {
            "name": (name or "a conversation")[:MAX_TEXT],
            "link": f"https://matrix.to/#/{place}",
            "messages": [_message(txn, item) for item in last],
            "more": len(items) - len(last),
        }


def _message(txn: Transaction, item: ToTell) -> JsonObject:
    sender = item.event.sender
    if item.member.membership != "invite":
        sender = member_name(txn, item.room.room_nid, sender)
    return {"sender": sender[:MAX_TEXT], "text": said(item.event)[:MAX_TEXT]}


def said(event: Event) -> str:
    """What an event says, for those who only read."""
    content: Any = event.content
    if event.type == "m.room.member" and event.membership == "invite":
        return "invited you"
    if event.type == "m.room.encrypted":
        return "sent an encrypted message"
    if event.type == "m.call.invite":
        return "called"
    if event.type == "m.sticker":
        return "sent a sticker"
    body = content.get("body")
    kind = content.get("msgtype")
    if isinstance(kind, str) and kind in _SAID:
        return _SAID[kind]
    return body if isinstance(body, str) and body else f"sent something ({event.type})"
