"""Administrators of a test server."""

from __future__ import annotations

from storage import tokens
from storage.transaction import Transaction
from tests.support.server import User


async def make_admin(user: User) -> User:
    """Make a user an administrator of the server; the user."""

    def write(txn: Transaction) -> None:
        sql = "UPDATE users SET is_admin = ? WHERE user_id = ?"
        txn.execute(sql, (True, user.user_id))
        txn.invalidate(tokens.CACHE, user.user_id)

    await user.server.homeserver.db.write(write)
    return user
