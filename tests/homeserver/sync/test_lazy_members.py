"""What is remembered of the members that devices were sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.cache import Caches
from homeserver.sync import lazy_members
from homeserver.sync.lazy_members import NOTHING, SentMembers

DEVICE = ("@alice:hearth.test", "PHONE")


class SentMembersTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = SentMembers()

    def known(self, since: int | None) -> set[int]:
        return set(self.memory.known(*DEVICE, since))

    def sent(self, since: int | None, now: int, *members: int) -> None:
        self.memory.sent(*DEVICE, since, now, frozenset(members))

    def test_adds_up(self) -> None:
        """Shows FIL-8."""
        self.sent(None, 10, 1, 2)
        self.assertEqual(self.known(10), {1, 2})
        self.sent(10, 20, 3)
        self.assertEqual(self.known(20), {1, 2, 3})
        self.sent(20, 30)
        self.assertEqual(self.known(30), {1, 2, 3})
        self.assertEqual(self.memory.known("@alice:hearth.test", "TABLET", 30), NOTHING)

    def test_a_room_that_begins_anew(self) -> None:
        """Shows SYN-7, FIL-8."""
        self.sent(None, 10, 1, 2, 3)
        known = self.memory.known(*DEVICE, 10)
        self.assertEqual(known, {1, 2, 3})
        # With the answer, not before.
        self.memory.sent(*DEVICE, 10, 20, frozenset([2, 4]), frozenset([1, 2]))
        self.assertEqual(self.known(10), {1, 2, 3})
        self.assertEqual(self.known(20), {2, 3, 4})

    def test_the_same_token_again(self) -> None:
        """Shows FIL-8."""
        self.sent(None, 10, 1)
        for _ in range(3):
            self.assertEqual(self.known(10), {1})
            self.sent(10, 20, 2)

    def test_lost_answer(self) -> None:
        """Shows FIL-8: what was in an answer that did not arrive is sent again."""
        self.sent(None, 10, 1)
        self.known(10)
        self.sent(10, 20, 2)
        self.assertEqual(self.known(10), {1})
        self.sent(10, 30, 3)
        self.assertEqual(self.known(30), {1, 3})

    def test_parallel_answers(self) -> None:
        """Shows FIL-8: only the one that the device goes on from counts."""
        self.sent(None, 10, 1)
        self.known(10)
        self.known(10)
        self.sent(10, 30, 3)
        self.sent(10, 20, 2)
        self.assertEqual(self.known(30), {1, 3})

    def test_different_answers_with_one_token(self) -> None:
        """Shows FIL-8: only what both have counts."""
        self.sent(None, 10, 1, 2)
        self.sent(None, 10, 2, 3)
        self.assertEqual(self.known(10), {2})

    def test_answer_with_the_token_of_the_request(self) -> None:
        """Shows FIL-8: it cannot be seen whether that arrived."""
        self.sent(None, 10, 1)
        self.known(10)
        self.sent(10, 10, 2)
        self.assertEqual(self.known(10), {1})

    def test_unknown_token(self) -> None:
        """Shows FIL-8: from another process, or from before the last tokens."""
        self.sent(None, 10, 1)
        self.assertEqual(self.known(15), set())
        self.sent(15, 20, 2)
        self.assertEqual(self.known(20), {2})
        self.assertEqual(self.known(10), set())
        self.assertEqual(self.known(None), set())

    def test_new_beginning(self) -> None:
        """Shows FIL-8."""
        self.sent(None, 10, 1)
        self.known(10)
        self.sent(10, 20, 2)
        self.sent(None, 30, 3)
        self.assertEqual(self.known(20), set())
        self.assertEqual(self.known(30), {3})

    def test_bounded(self) -> None:
        """Nothing grows without end."""
        self.patch(lazy_members, "MAX_MEMBERS", 5)
        self.sent(None, 10, 1, 2, 3)
        self.known(10)
        self.sent(10, 20, 4, 5, 6)
        self.assertEqual(self.known(20), set())
        for now in range(30, 100):
            self.sent(20, now, now)
        self.assertEqual(self.known(30), set())
        small, caches = SentMembers(), Caches(100_000)
        caches.adopt(small.caches[0])
        for number in range(30):
            small.sent("@a:x", f"D{number}", None, 10, frozenset([1]))
        self.assertEqual(small.known("@a:x", "D0", 10), NOTHING)
        self.assertEqual(small.known("@a:x", "D29", 10), {1})
        self.assertLessEqual(caches.bytes, 25_000)

    def test_what_a_device_has_is_weighed(self) -> None:
        """What is added to a device counts, not only the device."""
        (cache,) = self.memory.caches
        self.sent(None, 10, 1)
        before = cache.bytes
        self.sent(None, 20, *range(1000))
        self.assertGreater(cache.bytes, before + 32_000)
        self.known(20)
        self.assertGreater(cache.bytes, before + 32_000)
        self.sent(20, 30)
        self.known(30)
        self.assertGreater(cache.bytes, before + 32_000)
