"""Users who take no invites (client-server API, "Invite permission")."""

from __future__ import annotations

from homeserver.core.errors import MatrixError
from storage import account_data
from storage.transaction import Transaction


def check(txn: Transaction, user_id: str) -> None:
    """Raise MatrixError 403 `M_INVITE_BLOCKED` if a user of this server takes no invites."""
    if account_data.blocks_invites(txn, user_id):
        raise MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} takes no invites.")
