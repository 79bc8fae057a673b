"""What devices did, and what follows of it for each of them. Pure: no clock, no I/O.

A message is **owed** to a device if both are so:

- the sender's client had sent the device the message's session, and its server had acknowledged
  that, before the message was encrypted; or both devices were *settled* in the room then;
- the device still exists in the end, and its user is in the room then.

A device is settled in a room from the moment at which every device in the room was seen to know
it (`settle`, at a quiet point), until it is given up or its user leaves the room (`unsettle`).
Whoever is settled and speaks later must know it: that such a device was not sent a session is a
problem by itself, as somebody would see "unable to decrypt".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_OF_A_KIND = 8
"""Problems of one kind that are told in full."""


class Copy(NamedTuple):
    """An event as a device found it in a room's history; `body`: None if it cannot be read."""

    event_id: str
    session_id: str
    body: str | None


@dataclass
class Message:
    """What somebody said. `targets`: the devices that have its session."""

    txn: str
    device: str
    room: str
    session: str
    index: int
    body: str
    said_at: float
    targets: set[str]
    event_id: str | None = None
    acked_at: float = 0.0
    waiting: set[str] = field(default_factory=set)
    """Targets that were not seen to read it yet."""

    def __str__(self) -> str:
        return (
            f"{self.event_id}, {self.body!r} of {self.device} in {self.room}, session "
            f"{self.session} at {self.index}"
        )


@dataclass
class Share:
    """A session sent to one device. `acked`: the sender's server has it."""

    sender: str
    device: str
    room: str
    session: str
    acked: bool = False
    got: list[tuple[str, bool]] = field(default_factory=list)
    """The lives of the device in which it came, and whether it could be read."""

    def __str__(self) -> str:
        return f"{self.session} of {self.room} from {self.sender} to {self.device}"


class Ledger:
    """Takes the reports of the clients, in the order in which they come. Devices are named
    `user ID/device ID`."""

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.shares: dict[str, Share] = {}
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.gone: set[str] = set()
        self.decrypted = 0
        self.withheld = 0
        self._by_event: dict[str, Message] = {}
        self._has_session: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._settled: dict[str, set[str]] = defaultdict(set)
        self._keys: dict[tuple[str, str, str], str] = {}
        self._key_values: dict[tuple[str, str, str], str] = {}
        self._unread: dict[str, Message] = {}
        self._seen_early: dict[str, set[str]] = defaultdict(set)
        self._unsent_shares: set[str] = set()
        self._away: dict[str, set[str]] = defaultdict(set)

    def problem(self, kind: str, text: str) -> None:
        """Note what is not as it should be."""
        self.problems[kind].append(text)

    def take(self, report: Mapping[str, Any], now: float) -> None:
        """Take a report of a client, see `host`. `now` in seconds."""
        getattr(self, f"_take_{report['report']}")(report, now)

    # Reports.

    def _take_trouble(self, report: Mapping[str, Any], now: float) -> None:
        self.problem("a client met something strange", f"{report['device']}: {report['what']}")

    def _take_otk(self, report: Mapping[str, Any], now: float) -> None:
        user, device = report["user"], report["device_id"]
        for table, name in ((self._keys, report["key"]), (self._key_values, report["value"])):
            key = (user, device, name)
            if key in table:
                self.problem(
                    "a one-time key was handed out twice",
                    f"{name} of {user}/{device}: to {table[key]} and to {report['device']}",
                )
            table[key] = report["device"]

    def _take_sharing(self, report: Mapping[str, Any], now: float) -> None:
        for user, device, share in report["to"]:
            self.shares[share] = Share(
                report["device"], f"{user}/{device}", report["room"], report["session"]
            )

    def _take_shared(self, report: Mapping[str, Any], now: float) -> None:
        for name in report["shares"]:
            share = self.shares[name]
            share.acked = True
            self._has_session[share.room, share.session].add(share.device)
            if not share.got:
                self._unsent_shares.add(name)

    def _take_got(self, report: Mapping[str, Any], now: float) -> None:
        share = self.shares.get(report["share"])
        who = report["device"]
        if share is None or share.device != who:
            self.problem("a key came to the wrong device", f"{report['share']} to {who}")
            return
        if any(life == report["life"] for life, _ in share.got):
            self.problem(
                "a key came twice",
                f"{report['share']}, {share}",
            )
        if not report["ok"] and not share.got:
            self.problem(
                "a key could not be read",
                str(share),
            )
        share.got.append((report["life"], report["ok"]))
        self._unsent_shares.discard(report["share"])

    def _take_said(self, report: Mapping[str, Any], now: float) -> None:
        room, session, who = report["room"], report["session"], report["device"]
        has = self._has_session[room, session] | {who}
        message = Message(
            report["txn"], who, room, session, report["index"], report["body"], now, set(has)
        )
        self.withheld += len(report["withheld"])
        # A device that is new itself may have nobody to ask for one-time keys.
        owed = self._settled[room] - has if who in self._settled[room] else set()
        for lacking in sorted(owed):
            why = "its key was withheld" if lacking in report["withheld"] else "it is not known"
            asking = ", ".join(report["asking"]) or "nobody"
            self.problem(
                "a settled device was not sent the session",
                f"{message.body!r}, {session} of {who}, lacks {lacking}: {why} (asks for the "
                f"lists of {asking})",
            )
        self.messages[message.txn] = message

    def _take_acked(self, report: Mapping[str, Any], now: float) -> None:
        message = self.messages.get(report["txn"])
        if message is None:
            self.problem("an unknown message was acknowledged", str(dict(report)))
            return
        event_id = report["event"]
        if message.event_id not in (None, event_id):
            self.problem(
                "a message became two events", f"{message.body!r}: {message.event_id}, {event_id}"
            )
        if message.event_id is None:
            message.event_id, message.acked_at = event_id, now
            early = self._seen_early.pop(event_id, set())
            message.waiting = message.targets - early - self.gone - self._away[message.room]
            self._by_event[event_id] = message
            if message.waiting:
                self._unread[event_id] = message

    def _take_refused(self, report: Mapping[str, Any], now: float) -> None:
        message = self.messages.pop(report["txn"], None)
        body = "?" if message is None else message.body
        if " M_FORBIDDEN" not in report["why"].replace("'", " "):
            self.problem(
                "a message was refused", f"{body!r} of {report['device']}: {report['why']}"
            )

    def _take_seen(self, report: Mapping[str, Any], now: float) -> None:
        message = self._by_event.get(report["event"])
        self.decrypted += 1
        if message is None:
            self._seen_early[report["event"]].add(report["device"])
            return
        self._same(message, report["body"], report["device"])
        message.waiting.discard(report["device"])
        if not message.waiting:
            self._unread.pop(report["event"], None)

    def _same(self, message: Message, body: str, who: str) -> None:
        if body != message.body:
            self.problem(
                "a message was read as another one",
                f"{message.event_id}: {message.body!r}, read as {body!r} by {who}",
            )

    # What the script does.

    def settle(self, room: str, devices: Iterable[str]) -> None:
        """At a quiet point: everybody in a room knows these devices."""
        self._settled[room] = set(devices)

    def unsettle(self, device: str, room: str | None = None) -> None:
        """A device, or its user, is about to leave a room, or all."""
        for settled in [self._settled[room]] if room is not None else self._settled.values():
            settled.discard(device)

    def release(self, device: str, room: str | None = None) -> None:
        """Nothing need be read any more by a device: it was given up, or its user left a room."""
        if room is None:
            self.gone.add(device)
        else:
            self._away[room].add(device)
        self.unsettle(device, room)
        for event_id, message in list(self._unread.items()):
            if room in (None, message.room):
                message.waiting.discard(device)
                if not message.waiting:
                    del self._unread[event_id]

    def enter(self, device: str, room: str) -> None:
        """The user of a device is in a room (again)."""
        self._away[room].discard(device)

    def unread(self) -> list[Message]:
        """Acknowledged messages that some device has still to read."""
        return list(self._unread.values())

    def forget_unread(self) -> None:
        """Wait no more for what was not read; the last look will tell."""
        self._unread.clear()
        self._unsent_shares.clear()

    def unsent(self) -> list[Share]:
        """Keys that were acknowledged and did not come yet."""
        return [
            self.shares[each]
            for each in self._unsent_shares
            if self.shares[each].device not in self.gone
        ]

    # In the end.

    def audit(self, room: str, histories: Mapping[str, Sequence[Copy]]) -> Counter[str]:
        """Compare a room's history as all devices in it found it with what was said."""
        said = {id_: each for id_, each in self._by_event.items() if each.room == room}
        figures: Counter[str] = Counter({"acknowledged": len(said)})
        for device, history in histories.items():
            self._audit_events(room, device, said, history)
            copies = {copy.event_id: copy for copy in history}
            for event_id, message in said.items():
                copy = copies.get(event_id)
                if copy is None or device not in message.targets:
                    continue
                figures["owed"] += 1
                if copy.body is None:
                    figures["undecryptable"] += 1
                    self.problem("unable to decrypt", self._explain(message, device))
                else:
                    figures["decrypted"] += 1
                    self._same(message, copy.body, device)
            self._audit_order(device, [said[c.event_id] for c in history if c.event_id in said])
        return figures

    def _audit_events(
        self,
        room: str,
        device: str,
        said: Mapping[str, Message],
        history: Sequence[Copy],
    ) -> None:
        count = Counter(copy.event_id for copy in history)
        # Who was given up while saying something never learns whether it was taken.
        unheard: dict[str, set[str | None]] = defaultdict(lambda: {None})
        for message in self.messages.values():
            if message.event_id is None and message.room == room and message.device in self.gone:
                unheard[message.session].add(message.body)
        perhaps = {
            copy.event_id for copy in history if copy.body in unheard.get(copy.session_id, ())
        }
        for event_id, times in count.items():
            if times > 1:
                self.problem("an event is there twice", f"{event_id} in {room} for {device}")
            if event_id not in said and event_id not in perhaps:
                self.problem("an event that nobody sent", f"{event_id} in {room} for {device}")
        for event_id, message in said.items():
            if event_id not in count:
                self.problem(
                    "a message is missing",
                    f"{event_id}, {message.body!r} of {message.device}, in {room} for {device}",
                )

    def _audit_order(self, device: str, messages: Sequence[Message]) -> None:
        """What one device said comes in the order in which it said it."""
        last: dict[str, Message] = {}
        for message in messages:
            before = last.get(message.device)
            if before is not None and before.said_at > message.said_at:
                self.problem(
                    "messages are out of order",
                    f"{before.body!r} before {message.body!r} in {message.room} for {device}",
                )
            last[message.device] = message

    def _explain(self, message: Message, device: str) -> str:
        text = f"{message}, by {device}: "
        sent = [
            share
            for share in self.shares.values()
            if share.device == device and share.session == message.session and share.acked
        ]
        if not sent:
            return text + "it is the sender's own device"
        came = [ok for share in sent for _, ok in share.got]
        if not came:
            return text + "the key was sent and did not come"
        return text + (
            "the key came, and cannot be used" if any(came) else "the key is not legible"
        )

    def finish(self, live: Iterable[str]) -> Counter[str]:
        """Look for keys that were lost on the way to the devices that there still are."""
        living = set(live)
        figures: Counter[str] = Counter()
        for name, share in self.shares.items():
            figures["keys sent"] += share.acked
            figures["keys received"] += bool(share.got)
            if share.acked and not share.got and share.device in living:
                self.problem(
                    "a key was lost",
                    f"{name}, {share}",
                )
        for message in self.messages.values():
            if message.event_id is None and message.device in living:
                self.problem(
                    "a message was never acknowledged", f"{message.body!r} of {message.device}"
                )
        figures["one-time keys claimed"] = len(self._keys)
        return figures

    def told(self) -> list[str]:
        """The problems, as lines."""
        lines = []
        for kind, found in sorted(self.problems.items()):
            lines.append(f"{kind} ({len(found)}):")
            lines += [f"    {each}" for each in found[:MAX_OF_A_KIND]]
        return lines
