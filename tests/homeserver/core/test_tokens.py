"""Position tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core import tokens
from homeserver.core.errors import MatrixError
from homeserver.core.tokens import (
    MAX_POSITION,
    PaginationToken,
    SyncToken,
    parse_room_token,
)

POSITIONS = st.integers(0, MAX_POSITION)
MALFORMED: list[Any] = [
    "", "s", "t", "s1", "s1_", "s_1", "s1_2_3", "s1_2_1", "s2_1_", "s2_1_01", "s2_1_0_0",
    "s-1_2", "s+1_2", "s1_-2", " s1_2", "s1_2 ",
    "s1_2\n", "s01_2", "s1_00", "s1_2\0", "s١_2", "s1.0_2", "s1e3_2", "S1_2", "1_2",
    f"s{MAX_POSITION + 1}_0", f"s0_{MAX_POSITION + 1}", "s" + "9" * 5000 + "_0",
    "t1", "t1_2", "t-1-2", "t1--0", "t1-+2", "t1-2-3", "t01-2", f"t{MAX_POSITION + 1}-0",
    f"t0-{MAX_POSITION + 1}", f"t0--{MAX_POSITION + 1}", "\ud800", None, 1, True, [], {}, b"s1_2",
]  # fmt: skip


class TokenTests(SynchronousTestCase):
    @given(POSITIONS, POSITIONS)
    def test_sync_token(self, durable: int, ephemeral: int) -> None:
        token = SyncToken(durable, ephemeral)
        self.assertEqual(str(token), f"s{durable}_{ephemeral}")
        self.assertEqual(SyncToken.parse(str(token)), token)
        self.assertEqual(parse_room_token(str(token)), token)
        self.assertIsInstance(parse_room_token(str(token)), SyncToken)

    @given(POSITIONS, POSITIONS, POSITIONS)
    def test_sync_token_with_messages_waiting(self, one: int, other: int, ephemeral: int) -> None:
        behind, durable = sorted((one, other))
        assume(behind < durable)
        token = SyncToken(durable, ephemeral, behind)
        self.assertEqual(str(token), f"s{durable}_{ephemeral}_{behind}")
        self.assertEqual(SyncToken.parse(str(token)), token)
        self.assertEqual(token.to_device, behind)
        self.assertEqual(SyncToken(durable, ephemeral).to_device, durable)

    @given(POSITIONS, st.integers(-MAX_POSITION, MAX_POSITION))
    def test_pagination_token(self, depth: int, position: int) -> None:
        token = PaginationToken(depth, position)
        self.assertEqual(str(token), f"t{depth}-{position}")
        self.assertEqual(PaginationToken.parse(str(token)), token)
        self.assertIsInstance(parse_room_token(str(token)), PaginationToken)

    def test_malformed(self) -> None:
        parsers: list[Callable[[Any], Any]] = [
            SyncToken.parse,
            PaginationToken.parse,
            parse_room_token,
        ]
        for parse in parsers:
            for text in MALFORMED:
                error = self.assertRaises(MatrixError, parse, text)
                self.assertEqual((error.status, error.errcode), (400, "M_INVALID_PARAM"), text)

    def test_what_is_too_long_is_not_kept(self) -> None:
        """Tokens that were read are remembered; what a stranger sends in place of one is not."""
        tokens._plain_sync.cache_clear()
        text = "s1_" + "2" * 10_000
        self.assertRaises(MatrixError, SyncToken.parse, text)
        self.assertEqual(tokens._plain_sync.cache_info().currsize, 0)

    def test_one_is_not_the_other(self) -> None:
        self.assertRaises(MatrixError, SyncToken.parse, "t1-2")
        self.assertRaises(MatrixError, PaginationToken.parse, "s1_2")
