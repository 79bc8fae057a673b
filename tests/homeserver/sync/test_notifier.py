"""The notifier by itself: real feed and bus, a database that tells who is where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.sync.notifier import AT_ONCE, LINGER, Notifier, Watch
from storage.bus import MemoryBus
from storage.database import Database
from storage.feed import Feed
from storage.news import News


class _Positions:
    applied = foreign = 0


class Rooms:
    """Stands in for the database: answers which rooms a user is in."""

    process_token = "test"
    positions = _Positions()

    def __init__(self) -> None:
        self.rooms: dict[str, list[int]] = {}
        self.reads = 0
        self.news = News(set(), set())
        """What happened that nobody was told of."""
        self.looks: list[tuple[int, list[int], list[str]]] = []
        """From where on, in which rooms and for whom it was asked."""
        self.held: list[Callable[[], None]] | None = None
        """While it is a list, answers wait there."""
        self._on_commit: Callable[[tuple[str, ...], int], None] | None = None

    def on_commit(self, listener: Callable[[tuple[str, ...], int], None]) -> None:
        self._on_commit = listener

    def publish(self, channels: tuple[str, ...], pos: int) -> None:
        """Other processes are none of these tests' business."""

    def commit(self, *channels: str) -> None:
        """Something was committed that concerns these channels."""
        assert self._on_commit is not None
        self._on_commit(channels, 1)

    def read(self, fn: object, *args: Any) -> Deferred[Any]:
        self.looks.append(args)
        return succeed((args[0] + 10, self.news))

    def query(self, query: object, user_id: str) -> Deferred[tuple[int, list[int]]]:
        self.reads += 1
        rooms = (1, list(self.rooms.get(user_id, ())))
        if self.held is None:
            return succeed(rooms)
        answer: Deferred[tuple[int, list[int]]] = Deferred()
        self.held.append(lambda: answer.callback(rooms))
        return answer


class Bus(MemoryBus):
    """A bus that can be made to say that it lost something."""

    def lose(self, *channels: str) -> None:
        self._subscriptions.gap(channels)


class NotifierTest(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.db = Rooms()
        self.bus = Bus(self.clock)
        self.feed = Feed(cast(Database, self.db), self.bus, self.clock)
        self.notifier = Notifier(cast(Database, self.db), self.feed, self.bus, self.clock)

    def watch(self, user_id: str, *rooms: int) -> Watch:
        """The watch of a user, who is in these rooms."""
        self.db.rooms[user_id] = list(rooms)
        return self.look(user_id)

    def look(self, user_id: str) -> Watch:
        return self.successResultOf(Deferred.fromCoroutine(self.notifier.watch(user_id)))

    def wait(self, watch: Watch, seconds: float = 30) -> Deferred[None]:
        return self.notifier.wait(watch, watch.version, seconds)

    def listened_to(self) -> set[str]:
        """Channels that somebody listens to."""
        return set(self.feed._listeners)

    def assert_nothing_left(self) -> None:
        self.assertEqual((self.notifier._watches, self.notifier._rooms), ({}, {}))
        self.assertEqual(self.listened_to(), set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # Waking

    def test_wakes_those_in_the_room(self) -> None:
        """Shows SYN-31."""
        alice = self.wait(self.watch("@alice:x", 1, 2))
        bob = self.wait(self.watch("@bob:x", 2))
        self.db.commit("room:1")
        self.successResultOf(alice)
        self.assertNoResult(bob)
        self.db.commit("room:2")
        self.successResultOf(bob)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wakes_all_clients_of_a_user(self) -> None:
        watch = self.watch("@alice:x", 1)
        waiting = [self.wait(watch) for _ in range(3)]
        self.db.commit("user:@alice:x")
        for one in waiting:
            self.successResultOf(one)

    def test_time_out(self) -> None:
        watch = self.watch("@alice:x", 1)
        waiting = self.wait(watch, 30)
        self.clock.advance(29)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.successResultOf(waiting)
        self.assertEqual(watch.waiters, set())

    def test_no_hint_is_lost_between_looking_and_waiting(self) -> None:
        """Shows SYN-31."""
        for channel in ("room:1", "user:@alice:x"):
            watch = self.watch("@alice:x", 1)
            version = watch.version
            self.db.commit(channel)
            self.successResultOf(self.notifier.wait(watch, version, 30))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_client_goes_on_with_rooms_that_are_still_being_read(self) -> None:
        """The rooms of a second client are as good as those of the first. Shows SYN-31."""
        self.db.rooms["@alice:x"] = [1]
        self.db.held = []
        first = Deferred.fromCoroutine(self.notifier.watch("@alice:x"))
        second = Deferred.fromCoroutine(self.notifier.watch("@alice:x"))
        self.db.held[1]()
        self.assertNoResult(first)
        watch = self.successResultOf(second)
        waiting = self.wait(watch)
        self.db.held[0]()
        self.assertIs(self.successResultOf(first), watch)
        self.db.commit("room:1")
        self.successResultOf(waiting)

    def test_an_older_answer_does_not_replace_a_newer_one(self) -> None:
        self.db.rooms["@alice:x"] = [1]
        self.db.held = []
        first = Deferred.fromCoroutine(self.notifier.watch("@alice:x"))
        self.db.rooms["@alice:x"] = [1, 2]
        self.db.commit("user:@alice:x")
        second = Deferred.fromCoroutine(self.notifier.watch("@alice:x"))
        self.db.held[1]()
        watch = self.successResultOf(second)
        self.db.held[0]()
        self.successResultOf(first)
        self.assertEqual(watch.rooms, {1, 2})

    def test_a_hint_while_the_rooms_are_read(self) -> None:
        """They are read again. Shows SYN-31."""
        self.db.rooms["@alice:x"] = []
        self.db.held = []
        looking = Deferred.fromCoroutine(self.notifier.watch("@alice:x"))
        self.db.rooms["@alice:x"] = [1]
        self.db.commit("user:@alice:x")
        self.db.held[0]()
        self.assertNoResult(looking)
        self.db.held[1]()
        self.assertEqual(self.successResultOf(looking).rooms, {1})

    def test_a_client_that_goes_while_the_rooms_are_read(self) -> None:
        """The next one reads them. Shows SYN-31."""
        self.db.rooms["@alice:x"] = [1]
        self.db.held = []
        looking = Deferred.fromCoroutine(self.notifier.watch("@alice:x"))
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.db.held = None
        self.assertEqual(self.look("@alice:x").rooms, {1})

    # Rooms

    def test_joins_and_leaves(self) -> None:
        """Shows SYN-31."""
        self.watch("@alice:x", 1)
        self.assertEqual(self.listened_to(), {"user:@alice:x", "room:1"})
        self.db.rooms["@alice:x"] = [2]
        self.assertEqual(self.look("@alice:x").rooms, {1}, "nobody spoke of it")
        self.db.commit("user:@alice:x")
        watch = self.look("@alice:x")
        self.assertEqual(self.listened_to(), {"user:@alice:x", "room:2"})
        waiting = self.wait(watch)
        self.db.commit("room:1")
        self.assertNoResult(waiting)
        self.db.commit("room:2")
        self.successResultOf(waiting)

    def test_rooms_are_read_only_when_they_may_have_changed(self) -> None:
        for _ in range(3):
            self.look("@alice:x")
        self.db.commit("room:1")
        self.look("@alice:x")
        self.assertEqual(self.db.reads, 1)

    def test_a_room_is_listened_to_once(self) -> None:
        watches = [self.watch(f"@u{number}:x", 1) for number in range(5)]
        self.assertEqual(len(self.feed._listeners["room:1"]), 1)
        for watch in watches[:-1]:
            self.db.rooms[watch.user_id] = []
            self.db.commit(f"user:{watch.user_id}")
            self.look(watch.user_id)
        waiting = self.wait(watches[-1])
        self.db.commit("room:1")
        self.successResultOf(waiting)

    # Dropping

    def test_watches_are_kept_for_a_while(self) -> None:
        alice = self.watch("@alice:x", 1)
        self.clock.advance(LINGER - 1)
        self.look("@bob:x")
        self.assertIs(self.look("@alice:x"), alice)
        self.clock.advance(LINGER + 1)
        self.look("@bob:x")
        self.assertEqual(set(self.notifier._watches), {"@bob:x"})
        self.assertEqual(self.listened_to(), {"user:@bob:x"})

    def test_watches_with_clients_are_kept(self) -> None:
        waiting = self.wait(self.watch("@alice:x", 1), 10 * LINGER)
        self.clock.advance(5 * LINGER)
        self.look("@bob:x")
        self.db.commit("room:1")
        self.successResultOf(waiting)

    def test_nobody_waits_on_a_watch_that_was_dropped(self) -> None:
        """A client whose answer took very long looks again."""
        watch = self.watch("@alice:x", 1)
        version = watch.version
        self.clock.advance(2 * LINGER)
        self.look("@bob:x")
        self.successResultOf(self.notifier.wait(watch, version, 30))

    def test_a_client_goes_away(self) -> None:
        watch = self.watch("@alice:x", 1)
        waiting = self.wait(watch)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(watch.waiters, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.db.commit("room:1")

    def test_stop(self) -> None:
        """Shows SYN-31."""
        waiting = self.wait(self.watch("@alice:x", 1))
        with self.notifier.peek("@bob:x", 2) as peek:
            peeking = self.wait(peek)
            self.notifier.stop()
            self.successResultOf(waiting)
            self.successResultOf(peeking)
            self.assertTrue(self.notifier.is_stopped)
        self.assert_nothing_left()

    # Peeking

    def test_peek(self) -> None:
        """Shows HV-6."""
        alice = self.watch("@alice:x", 1)
        with self.notifier.peek("@bob:x", 1) as peek:
            both = [self.wait(alice), self.wait(peek)]
            self.db.commit("room:1")
            for waiting in both:
                self.successResultOf(waiting)
            self.assertEqual(set(self.notifier._watches), {"@alice:x"})
        self.assertEqual(self.notifier._rooms, {1: {alice}})

    # Hints that were lost

    def test_gap_of_a_room(self) -> None:
        """Only those concerned look again. Shows SYN-31."""
        alice, bob = self.wait(self.watch("@alice:x", 1)), self.wait(self.watch("@bob:x", 2))
        self.bus.lose("room:1", "room:77", "room:x", "presence", "user:@nobody:x")
        self.successResultOf(alice)
        self.assertNoResult(bob)

    def test_gap_of_a_user(self) -> None:
        """Their rooms are read again. Shows SYN-31."""
        alice, bob = self.wait(self.watch("@alice:x", 1)), self.wait(self.watch("@bob:x", 1))
        self.db.rooms["@alice:x"] = [1, 2]
        self.bus.lose("user:@alice:x")
        self.successResultOf(alice)
        self.assertNoResult(bob)
        self.assertEqual(self.look("@alice:x").rooms, {1, 2})

    def test_anything_may_have_been_missed(self) -> None:
        """The database is asked whom it concerns, and only they look. Shows SYN-31."""
        waiting = [self.wait(self.watch(f"@u{number}:x", number)) for number in range(4)]
        self.db.rooms["@u0:x"] = [0, 9]
        self.db.news = News({1, 5, 77}, {"@u0:x", "@gone:x"})
        with self.notifier.peek("@bob:x", 5) as peek:
            waiting.append(self.wait(peek))
            self.feed.missed()
            for number in (0, 1, 4):
                self.successResultOf(waiting[number])
        for number in (2, 3):
            self.assertNoResult(waiting[number])
        self.assertEqual(self.look("@u0:x").rooms, {0, 9})
        self.feed.missed()
        (first, rooms, users), (then, _, _) = self.db.looks
        self.assertEqual((first, then), (0, 10))
        self.assertEqual(
            (set(rooms), set(users)), ({0, 1, 2, 3, 5}, {f"@u{n}:x" for n in range(4)})
        )

    def test_long_waits_share_timers(self) -> None:
        watches = [self.watch(f"@u{number}:x", number) for number in range(20)]
        before = len(self.clock.getDelayedCalls())
        waiting = [self.wait(watch, 30 + number / 1000) for number, watch in enumerate(watches)]
        short = [self.wait(watch, 0.5 + number / 1000) for number, watch in enumerate(watches)]
        self.assertLessEqual(len(self.clock.getDelayedCalls()) - before, 2 + len(short))
        self.clock.advance(0.6)
        for one in short:
            self.successResultOf(one)
        self.clock.advance(29.39)
        for one in waiting:
            self.assertNoResult(one)
        self.clock.advance(0.3)
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(len(self.clock.getDelayedCalls()), before)

    def test_many_go_on_a_few_at_a_time(self) -> None:
        watches = [self.watch(f"@u{number}:x", 1) for number in range(3 * AT_ONCE)]
        waiting = [self.wait(watch) for watch in watches]
        self.db.commit("room:1")
        done = [one for one in waiting if one.called]
        self.assertEqual(len(done), AT_ONCE)
        self.assertEqual({watch.version for watch in watches}, {1})
        order: list[str] = []
        for one in waiting:
            if not one.called:
                one.addCallback(lambda _: order.append("first"))
        first = watches[waiting.index(done[0])]
        self.wait(first).addCallback(lambda _: order.append("again"))
        self.db.commit("room:1")
        # Who had gone on and waits again comes behind those who have still to go on, and those are
        # woken once.
        self.assertEqual(order, [])
        self.clock.advance(0)
        self.assertEqual(order, ["first"] * 2 * AT_ONCE + ["again"])

    def test_many_waiting_clients_hold_one_watch_each(self) -> None:
        watches = [self.watch(f"@u{number}:x", number % 10) for number in range(1000)]
        waiting = [self.wait(watch) for watch in watches]
        self.assertEqual(len(self.notifier._watches), 1000)
        self.assertEqual(len(self.notifier._rooms), 10)
        self.assertEqual(sum(len(watch.waiters) for watch in watches), 1000)
        self.assertEqual(sum(map(len, self.feed._listeners.values())), 1010)
        for number in range(10):
            self.db.commit(f"room:{number}")
        for _ in range(1000 // AT_ONCE):
            self.clock.advance(0)
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(sum(len(watch.waiters) for watch in watches), 0)
        self.clock.advance(2 * LINGER)
        self.look("@late:x")
        self.assertEqual(self.listened_to(), {"user:@late:x"})
