"""Tests of the state tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import state_nodes, state_tree
from homeserver.core.state_nodes import EMPTY, MalformedNode, MissingNode

KEYS = st.one_of(
    st.integers(0, 200),
    # Keys far apart, and keys that share the low bits.
    st.integers(0, 2**20).map(lambda n: n * 1024),
    st.integers(-(2**63), 2**63 - 1),
)
VALUES = st.integers(1, 2**63 - 1)
MAPS = st.dictionaries(KEYS, VALUES, max_size=300)
CHANGES = st.lists(
    st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=60), min_size=1, max_size=8
)


class Store:
    """Nodes in a dict, counting what is read."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.calls: list[int] = []

    def load(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        self.calls.append(len(hashes))
        assert len(set(hashes)) == len(hashes)
        return {h: self.nodes[h] for h in hashes if h in self.nodes}

    def build(self, mapping: Mapping[int, int]) -> bytes:
        root, nodes = state_tree.build(mapping)
        self.nodes.update(nodes)
        return root

    def update(self, root: bytes, changes: Mapping[int, int | None]) -> bytes:
        root, nodes = state_tree.update(root, changes, self.load)
        self.nodes.update(nodes)
        return root

    def contents(self, root: bytes) -> dict[int, int]:
        pairs = list(state_tree.items(root, self.load))
        mapping = dict(pairs)
        assert len(pairs) == len(mapping)
        return mapping


def changed(mapping: Mapping[int, int], changes: Mapping[int, int | None]) -> dict[int, int]:
    """What a dict would be after the changes."""
    result = dict(mapping)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


class LikeADict(TestCase):
    @settings(max_examples=150, deadline=None)
    @given(MAPS, CHANGES)
    def test_updates_and_canonical_shape(
        self, start: dict[int, int], rounds: list[dict[int, int | None]]
    ) -> None:
        """After any history the tree holds what a dict would, under the root of that content."""
        store = Store()
        root, expected = store.build(start), dict(start)
        for changes in rounds:
            root = store.update(root, changes)
            expected = changed(expected, changes)
            self.assertEqual(store.contents(root), expected)
            self.assertEqual(root, state_tree.build(expected)[0])
            self.assertEqual(state_tree.count(root, store.load), len(expected))
            values = sorted(state_tree.values(root, store.load))
            self.assertEqual(values, sorted(expected.values()))
            wanted = [*changes, *list(start)[:50]]
            self.assertEqual(
                state_tree.get(root, wanted, store.load),
                {key: expected[key] for key in wanted if key in expected},
            )

    @settings(max_examples=100, deadline=None)
    @given(MAPS, st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=300), st.booleans())
    def test_diff(self, a: dict[int, int], changes: dict[int, int | None], fresh: bool) -> None:
        """A difference of trees is the difference of dicts, in both directions."""
        b = changed({} if fresh else a, changes)
        store = Store()
        root_a, root_b = store.build(a), store.build(b)
        expected = {
            key: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)
        }
        self.assertEqual(state_tree.diff(root_a, root_b, store.load), expected)
        self.assertEqual(
            state_tree.diff(root_b, root_a, store.load),
            {key: (new, old) for key, (old, new) in expected.items()},
        )

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(KEYS, VALUES, min_size=33, max_size=400), st.randoms())
    def test_history_does_not_matter(self, mapping: dict[int, int], random) -> None:  # type: ignore[no-untyped-def]
        """Adding in any order, or removing from something larger, ends at the same root."""
        store = Store()
        order = list(mapping)
        random.shuffle(order)
        root = EMPTY
        for start in range(0, len(order), 7):
            root = store.update(root, {key: mapping[key] for key in order[start : start + 7]})
        larger = store.build({**dict.fromkeys(range(500), 5), **mapping})
        smaller = store.update(larger, {key: None for key in range(500) if key not in mapping})
        self.assertEqual(root, smaller)
        self.assertEqual(root, state_tree.build(mapping)[0])

    def test_keys_that_share_a_path(self) -> None:
        """Keys whose paths agree for twelve levels are still told apart."""
        inverse = pow(state_nodes.MULTIPLIER, -1, 2**64)
        keys = []
        for low in range(16):
            for high in range(3):
                key = (high << 60 | low) * inverse % 2**64
                keys.append(key - 2**64 if key >= 2**63 else key)
        mapping = {key: number for number, key in enumerate(keys, 1)}
        store = Store()
        root = store.build(mapping)
        self.assertEqual(store.contents(root), mapping)
        deep = {(n * inverse % 2**64 + 2**63) % 2**64 - 2**63: n for n in range(40)}
        root = store.build(deep)
        self.assertEqual(state_tree.get(root, deep, store.load), deep)
        self.assertEqual(root, store.update(store.build({}), deep))
        emptied = store.update(root, dict.fromkeys(list(deep)[8:]))
        self.assertEqual(store.contents(emptied), dict(list(deep.items())[:8]))
        self.assertEqual(emptied, state_tree.build(store.contents(emptied))[0])


class Shape(TestCase):
    def test_empty(self) -> None:
        """The empty map reads nothing and stores nothing."""
        store = Store()
        self.assertEqual(store.build({}), EMPTY)
        self.assertEqual(store.nodes, {})
        self.assertEqual(store.contents(EMPTY), {})
        self.assertEqual(state_tree.get(EMPTY, [1, 2], store.load), {})
        self.assertEqual(store.update(EMPTY, {1: None}), EMPTY)
        self.assertEqual(state_tree.count(EMPTY, store.load), 0)
        self.assertEqual(store.calls, [])
        root = store.update(EMPTY, {1: 2})
        self.assertEqual(store.update(root, {1: None}), EMPTY)

    def test_one_leaf_up_to_32_entries(self) -> None:
        """32 entries are one node, and the 33rd parts them; removing one joins them again."""
        store = Store()
        root, nodes = state_tree.build({key: key for key in range(32)})
        self.assertEqual(len(nodes), 1)
        store.nodes.update(nodes)
        larger, nodes = state_tree.update(root, {32: 32}, store.load)
        store.nodes.update(nodes)
        self.assertGreater(len(nodes), 1)
        again, nodes = state_tree.update(larger, {32: None}, store.load)
        self.assertEqual(again, root)
        # Nothing of the branches that are gone is written.
        self.assertEqual(list(nodes), [root])

    def test_no_change_writes_nothing(self) -> None:
        """Setting what is there already gives the same root and no nodes."""
        store = Store()
        root = store.build({key: key for key in range(1000)})
        self.assertEqual(state_tree.update(root, {5: 5, 5000: None}, store.load), (root, {}))
        self.assertEqual(state_tree.update(root, {}, store.load), (root, {}))

    def test_numbers_out_of_range(self) -> None:
        """Only signed 64-bit numbers are stored."""
        for mapping in ({1: 2**63}, {2**63: 1}):
            with self.assertRaises(ValueError):
                state_tree.build(mapping)


class Cost(TestCase):
    def setUp(self) -> None:
        self.store = Store()
        self.root = self.store.build({key: key + 1_000_000 for key in range(0, 300_000, 3)})

    def test_update_of_100k_entries(self) -> None:
        """Each change to a map of 100,000 entries reads and writes at most four nodes."""
        for key, value in ((3, 7), (1, 7), (299_997, None), (2**40, 9)):
            self.store.calls.clear()
            _, nodes = state_tree.update(self.root, {key: value}, self.store.load)
            self.assertLessEqual(sum(self.store.calls), 4)
            self.assertLessEqual(len(nodes), 4)
            self.assertLess(sum(map(len, nodes.values())), 2200)

    def test_point_read_of_100k_entries(self) -> None:
        """A point read takes four nodes; several keys share one load a level."""
        self.store.calls.clear()
        state_tree.get(self.root, [3], self.store.load)
        self.assertLessEqual(len(self.store.calls), 4)
        self.store.calls.clear()
        self.assertEqual(len(state_tree.get(self.root, range(0, 90, 3), self.store.load)), 30)
        self.assertLessEqual(len(self.store.calls), 4)

    def test_several_maps_are_read_together(self) -> None:
        store = Store()
        first = store.build({key: key + 1 for key in range(5000)})
        second = store.update(first, {7: 70, 8: None, 9000: 1})
        small = store.build({7: 3})
        store.calls.clear()
        found = state_tree.get_many([first, second, small, EMPTY], [7, 8, 9000], store.load)
        self.assertEqual(
            found,
            {first: {7: 8, 8: 9}, second: {7: 70, 9000: 1}, small: {7: 3}, EMPTY: {}},
        )
        # One call a level, whatever the number of maps.
        self.assertLessEqual(len(store.calls), 4)

    def test_diff_reads_only_the_difference(self) -> None:
        """Comparing neighbours reads the changed paths of both, level by level."""
        other = self.store.update(self.root, {3: 1, 6: None, 1: 1})
        self.store.calls.clear()
        self.assertEqual(
            state_tree.diff(self.root, other, self.store.load),
            {3: (1_000_003, 1), 6: (1_000_006, None), 1: (None, 1)},
        )
        self.assertLessEqual(len(self.store.calls), 4)
        self.assertLessEqual(sum(self.store.calls), 2 * 3 * 4)
        self.store.calls.clear()
        self.assertEqual(state_tree.diff(self.root, self.root, self.store.load), {})
        self.assertEqual(self.store.calls, [])

    def test_collapse_loads_once_a_level(self) -> None:
        """Removing nearly everything reads each level once, in batches, and ends as one leaf."""
        store = Store()
        root = store.build({key: key for key in range(1000)})
        store.calls.clear()
        small = store.update(root, dict.fromkeys(range(980)))
        self.assertEqual(small, state_tree.build({key: key for key in range(980, 1000)})[0])
        self.assertLessEqual(len(store.calls), 6)

    def test_batches_are_bounded(self) -> None:
        """No load asks for more than the batch size."""
        self.store.calls.clear()
        self.assertEqual(sum(1 for _ in state_tree.items(self.root, self.store.load)), 100_000)
        self.assertLessEqual(max(self.store.calls), state_nodes.LOAD_BATCH)


class BadNodes(TestCase):
    def test_missing(self) -> None:
        """A node that does not load is named."""
        store = Store()
        root = store.build({key: key for key in range(100)})
        lost = next(node_hash for node_hash in store.nodes if node_hash != root)
        del store.nodes[lost]
        for call in (
            lambda: list(state_tree.items(root, store.load)),
            lambda: state_tree.get(root, range(100), store.load),
            lambda: state_tree.update(root, dict.fromkeys(range(100), 0), store.load),
            lambda: state_tree.diff(root, EMPTY, store.load),
            lambda: state_tree.update(root, dict.fromkeys(range(90)), store.load),
        ):
            error = self.assertRaises(MissingNode, call)
            self.assertEqual(error.hash, lost)
            self.assertIn(lost.hex(), str(error))

    def test_malformed(self) -> None:
        """Bytes that are no node raise an error that names the node."""
        root, nodes = state_tree.build({key: key for key in range(40)})
        branch = nodes[root]
        leaf = next(node for node in nodes.values() if node[:1] == b"L")
        for bad in (
            b"",
            b"L",
            b"X" + leaf[1:],
            leaf[:-1],
            leaf + b"\0",
            b"L" + bytes(16 * 33),
            branch[:-1],
            branch[:6],
            branch + bytes(16),
            branch[:1] + (32).to_bytes(4, "big") + branch[5:],
            branch[:5] + b"\xff\xff\xff\xff" + branch[9:],
        ):
            for call in (
                lambda load: state_tree.get(root, [1], load),
                lambda load: state_tree.count(root, load),
                lambda load: state_tree.update(root, {1: 1}, load),
                lambda load: list(state_tree.items(root, load)),
                lambda load: state_tree.diff(root, EMPTY, load),
            ):
                error = self.assertRaises(
                    MalformedNode, call, lambda hashes, node=bad: dict.fromkeys(hashes, node)
                )
                self.assertEqual(error.hash, root)

    def test_wrong_number_of_entries(self) -> None:
        """A branch that miscounts is noticed when it would become a leaf."""
        store = Store()
        root = store.build({key: key for key in range(40)})
        branch = store.nodes[root]
        store.nodes[root] = branch[:1] + (33).to_bytes(4, "big") + branch[5:]
        with self.assertRaises(MalformedNode):
            state_tree.update(root, {1: None}, store.load)
