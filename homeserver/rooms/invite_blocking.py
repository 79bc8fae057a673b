"""Users who take no invites, or not those of everybody (client-server API, "Invite permission";
MSC4155)."""

from __future__ import annotations

from homeserver.core.errors import MatrixError
from homeserver.core.invite_permission import InvitePermission, Verdict, strictest
from storage import account_data
from storage.transaction import Transaction

_TYPES = (
    "m.invite_permission_config",
    "org.matrix.msc4155.invite_permission_config",
    "org.matrix.msc4380.invite_permission_config",
)


class Invites:
    """Which invites one user of this server takes."""

    def __init__(self, txn: Transaction, user_id: str) -> None:
        permissions = [
            InvitePermission.of(account_data.get(txn, user_id, account_data.GLOBAL, kind))
            for kind in _TYPES
        ]
        self._permissions = [each for each in permissions if not each.allows_all]

    def verdict(self, inviter: str) -> Verdict:
        """What becomes of an invite of this user."""
        return strictest(each.verdict(inviter) for each in self._permissions)

    def hides(self, inviter: str) -> bool:
        """Whether the user is not told of invites of this user."""
        return self.verdict(inviter) is not Verdict.ALLOW


def check(txn: Transaction, user_id: str, inviter: str) -> None:
    """Raise MatrixError 403 `M_INVITE_BLOCKED` if a user of this server refuses the inviter."""
    if Invites(txn, user_id).verdict(inviter) is Verdict.BLOCK:
        raise MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} does not take this invite.")
