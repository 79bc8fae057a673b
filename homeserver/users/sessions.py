"""Login sessions: access and refresh tokens, and finding the requester from a token.

- A session is a device. Its tokens end when it is deleted or logs in again.
- Clients that know refresh tokens get short-lived access tokens; others get one for the
  device's life.
- After a refresh the old tokens work until one of the new ones is used.
- An expired token leaves the device: 401 with `soft_logout`. A deleted one is unknown.

Requests are authenticated from memory. Whatever changes a token or an account invalidates the
user's entries in the same transaction (`storage.tokens.CACHE`), in every process.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.cache import Cache
from homeserver.core.errors import (
    MatrixError,
    forbidden,
    unknown_token,
    user_deactivated,
    user_limit_exceeded,
    user_locked,
)
from homeserver.core.ids import UserID
from homeserver.users.device_activity import DeviceActivity
from homeserver.users.hooks import UserHooks
from homeserver.users.secret_tokens import new_device_id, new_token, token_hash
from homeserver.web.request import Request, Requester
from storage import devices as device_rows
from storage import one_time_tokens, tokens, users
from storage.database import Database
from storage.errors import Conflict
from storage.transaction import Transaction

MAX_DEVICE_ID_BYTES = 255
MAX_DEVICE_NAME_CHARACTERS = 100
DEVICES_EXPLAINED = "https://spec.matrix.org/latest/client-server-api/#device-management"


@dataclass(frozen=True, slots=True)
class Grant:
    """New tokens of a session, as login, registration and refresh give them out."""

    user_id: UserID
    device_id: str
    access_token: str
    expires_in_ms: int | None = None
    refresh_token: str | None = None


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a client asks for when it logs in."""

    device_id: str | None = None
    display_name: str | None = None
    refresh: bool = False
    """Whether it understands refresh tokens."""
    ip: str = ""
    user_agent: str = ""


@dataclass(slots=True)
class _Cached:
    requester: Requester
    expires_ts: int | None
    seen_until: int = 0
    """Until when `DeviceActivity` need not be told again of requests from `seen_ip`."""
    seen_ip: str = ""


def _size(hashed: bytes, entry: _Cached) -> int:
    requester = entry.requester
    # The index has the hash and the user, too.
    return 1_000 + len(requester.user_id) + len(requester.device_id or "")


class Sessions:
    """Makes, finds and ends sessions.

    Lifetimes are in milliseconds; None means that tokens of a kind do not expire:
    `refresh_lifetime_ms` is of refresh tokens, `unrefreshed_lifetime_ms` of access tokens that
    come without one. Without `soft_logout` an expired access token counts as unknown.
    `max_devices`: how many one user can have.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        hooks: UserHooks,
        activity: DeviceActivity,
        *,
        access_lifetime_ms: int = 300_000,
        refresh_lifetime_ms: int | None = None,
        unrefreshed_lifetime_ms: int | None = None,
        soft_logout: bool = True,
        max_devices: int = 1_000,
    ) -> None:
        self._db = db
        self._clock = clock
        self._hooks = hooks
        self._activity = activity
        self._access_lifetime_ms = access_lifetime_ms
        self._refresh_lifetime_ms = refresh_lifetime_ms
        self._unrefreshed_lifetime_ms = unrefreshed_lifetime_ms
        self._soft_logout = soft_logout
        self._max_devices = max_devices
        self._pushed_out: deque[tuple[str, bytes]] = deque()
        self._cache: Cache[bytes, _Cached] = Cache("sessions", _size, dropped=self._dropped)
        self.caches = (self._cache,)
        self._hashes_of: dict[str, set[bytes]] = {}
        self._invalidated = 0
        db.on_invalidate(tokens.CACHE, self._invalidate, self._invalidate_all)

    # Authenticator

    async def authenticate(self, token: str, request: Request) -> Requester:
        """The holder of an access token.

        Raises MatrixError 401 M_UNKNOWN_TOKEN, with `soft_logout` if the token has expired
        (Client-server API, "Using access tokens", "Soft logout").
        """
        hashed = token_hash(token)
        cached = self._cache.get(hashed)
        if cached is None:
            cached = await self._load(hashed)
        now_ms = self._now()
        if cached.expires_ts is not None and cached.expires_ts <= now_ms:
            raise unknown_token(soft_logout=self._soft_logout)
        requester = cached.requester
        ip = request.remote_address
        if requester.device_id is not None and (
            now_ms >= cached.seen_until or ip != cached.seen_ip
        ):
            agent = request.user_agent or ""
            cached.seen_until = self._activity.seen(
                requester.user_id, requester.device_id, now_ms, ip, agent
            )
            cached.seen_ip = ip
        return requester

    async def _load(self, hashed: bytes) -> _Cached:
        before = self._invalidated
        row = await self._db.query(tokens.get_access_token, hashed)
        if row is None:
            raise unknown_token()
        expired = row.expires_ts is not None and row.expires_ts <= self._now()
        if row.refresh_hash is not None and not row.used and not expired:
            # First use: what this token replaced ends now.
            await self._db.write(tokens.confirm, row.user_id, row.refresh_hash)
        found = _Cached(_requester(row, hashed), row.expires_ts)
        # The row may be older than an invalidation that arrived meanwhile.
        if before == self._invalidated:
            self._remember(hashed, found)
        return found

    def _remember(self, hashed: bytes, entry: _Cached) -> None:
        self._hashes_of.setdefault(entry.requester.user_id, set()).add(hashed)
        self._cache[hashed] = entry
        while self._pushed_out:
            self._forget_hash(*self._pushed_out.popleft())

    def _dropped(self, hashed: bytes, entry: _Cached) -> None:
        # In any thread; the index is the reactor thread's.
        self._pushed_out.append((entry.requester.user_id, hashed))

    def _forget_hash(self, user_id: str, hashed: bytes) -> None:
        hashes = self._hashes_of.get(user_id)
        # It may have been remembered anew since it was pushed out.
        if hashes is not None and hashed not in self._cache:
            hashes.discard(hashed)
            if not hashes:
                del self._hashes_of[user_id]

    def _invalidate(self, user_id: str) -> None:
        self._invalidated += 1
        for hashed in self._hashes_of.pop(user_id, ()):
            self._cache.pop(hashed, None)

    def _invalidate_all(self) -> None:
        self._invalidated += 1
        self._hashes_of.clear()
        self._cache.clear()

    # Beginning and refreshing

    async def begin(
        self, user_id: UserID, wanted: NewSession, proved: users.UserRow | None = None
    ) -> Grant:
        """Log a user in on a new device, or anew on one that they have.

        `proved` is the account as it was when they proved who they are: if its password was
        changed since, they have proved nothing. Raises MatrixError: 403 M_FORBIDDEN (also if the
        device ID cannot be used), M_USER_DEACTIVATED, M_USER_LIMIT_EXCEEDED (too many devices).
        """
        return await self._db.write(self.begin_in, user_id, wanted, proved)

    def begin_in(
        self,
        txn: Transaction,
        user_id: UserID,
        wanted: NewSession,
        proved: users.UserRow | None = None,
    ) -> Grant:
        """`begin`, as part of a transaction."""
        user = users.lock_user(txn, user_id)
        if user is None or user.deactivated:
            raise user_deactivated()
        if proved is not None and proved.password_hash != user.password_hash:
            raise forbidden("The password was changed meanwhile.")
        now_ms = self._now()
        device_id = wanted.device_id or new_device_id()
        self._check_free(txn, user_id, device_id)
        row = device_rows.DeviceRow(
            user_id,
            device_id,
            clipped_device_name(wanted.display_name),
            now_ms,
            now_ms,
            wanted.ip,
            wanted.user_agent,
        )
        is_new = self._add_device(txn, row)
        if not is_new:
            if not device_rows.lock_device(txn, user_id, device_id):
                raise Conflict("The device was deleted meanwhile.")
            tokens.delete_of_devices(txn, user_id, [device_id])
            seen = device_rows.Seen(user_id, device_id, now_ms, wanted.ip, wanted.user_agent)
            device_rows.record_seen(txn, [seen])
        grant = self._grant(txn, user_id, device_id, wanted.refresh)
        if is_new:
            for changed in self._hooks.device_changed:
                changed(txn, user_id, device_id)
        return grant

    async def add_device(self, user_id: str, device_id: str) -> bool:
        """Make a device without a session; False if the user has it.

        Raises MatrixError: 400 M_INVALID_PARAM, 403 M_FORBIDDEN, M_USER_DEACTIVATED,
        M_USER_LIMIT_EXCEEDED.
        """

        def write(txn: Transaction) -> bool:
            user = users.lock_user(txn, user_id)
            if user is None or user.deactivated:
                raise user_deactivated()
            self._check_free(txn, user_id, device_id)
            now_ms = self._now()
            row = device_rows.DeviceRow(user_id, device_id, None, now_ms, None, None, None)
            is_new = self._add_device(txn, row)
            for changed in self._hooks.device_changed if is_new else ():
                changed(txn, user_id, device_id)
            return is_new

        return await self._db.write(write)

    def _check_free(self, txn: Transaction, user_id: str, device_id: str) -> None:
        check_device_id(device_id)
        if any(reserved(txn, user_id, device_id) for reserved in self._hooks.device_id_reserved):
            raise forbidden("This device ID is the ID of a cross-signing key.")

    def _add_device(self, txn: Transaction, row: device_rows.DeviceRow) -> bool:
        is_new = device_rows.insert_device(txn, row)
        if is_new and device_rows.count(txn, row.user_id) > self._max_devices:
            raise _too_many_devices(self._max_devices)
        return is_new

    async def refresh(self, refresh_token: str) -> Grant:
        """Exchange a refresh token for a new pair.

        Raises MatrixError 401 M_UNKNOWN_TOKEN; with `soft_logout` if it has expired
        (Client-server API, "Refreshing access tokens").
        """
        return await self._db.write(self._refresh, token_hash(refresh_token))

    def _refresh(self, txn: Transaction, hashed: bytes) -> Grant:
        device = tokens.device_of_refresh_token(txn, hashed)
        if device is None or not device_rows.lock_device(txn, *device):
            raise unknown_token()
        row = tokens.lock_refresh_token(txn, hashed)
        if row is None:
            raise unknown_token()
        if row.expires_ts is not None and row.expires_ts <= self._now():
            raise unknown_token(soft_logout=self._soft_logout)
        user = users.get_user(txn, row.user_id)
        if user is None or user.deactivated:
            raise unknown_token()
        if user.locked:
            raise user_locked()
        tokens.confirm(txn, row.user_id, hashed)
        if row.next_hash is not None:
            # The answer to an earlier refresh was lost: what it gave out was never used.
            tokens.delete_pair(txn, row.next_hash)
        grant = self._grant(txn, UserID(row.user_id), row.device_id, refresh=True)
        assert grant.refresh_token is not None
        tokens.set_successor(txn, hashed, token_hash(grant.refresh_token))
        return grant

    def _grant(self, txn: Transaction, user_id: UserID, device_id: str, refresh: bool) -> Grant:
        now_ms = self._now()
        access_token = new_token()
        if not refresh:
            lifetime = self._unrefreshed_lifetime_ms
            tokens.insert_access_token(
                txn,
                token_hash(access_token),
                user_id,
                device_id,
                now_ms=now_ms,
                expires_ts=None if lifetime is None else now_ms + lifetime,
            )
            return Grant(user_id, device_id, access_token, lifetime)
        refresh_token = new_token()
        lifetime = self._refresh_lifetime_ms
        tokens.insert_refresh_token(
            txn,
            token_hash(refresh_token),
            user_id,
            device_id,
            now_ms=now_ms,
            expires_ts=None if lifetime is None else now_ms + lifetime,
        )
        tokens.insert_access_token(
            txn,
            token_hash(access_token),
            user_id,
            device_id,
            now_ms=now_ms,
            expires_ts=now_ms + self._access_lifetime_ms,
            refresh_hash=token_hash(refresh_token),
        )
        return Grant(user_id, device_id, access_token, self._access_lifetime_ms, refresh_token)

    # Ending

    async def end_token(self, hashed: bytes) -> None:
        """End a token that belongs to no device."""
        await self._db.write(tokens.delete_token, hashed)

    async def end(self, user_id: str, device_id: str) -> None:
        """Log out: the device is deleted with all that belongs to it."""
        await self._db.write(self.end_devices_in, user_id, [device_id])

    async def end_all(self, user_id: str) -> None:
        """Log out everywhere."""
        await self._db.write(self.end_all_in, user_id)

    def end_all_in(self, txn: Transaction, user_id: str, keep: str | None = None) -> list[str]:
        """Log out everywhere except on the device `keep`; returns the devices deleted."""
        owned = [row.device_id for row in device_rows.get_devices(txn, user_id)]
        tokens.delete_by_puppeteer(txn, user_id)
        if keep is None:
            one_time_tokens.delete_of_user(txn, user_id)
        return self.end_devices_in(txn, user_id, [each for each in owned if each != keep])

    def end_devices_in(self, txn: Transaction, user_id: str, device_ids: list[str]) -> list[str]:
        """Delete devices with their tokens; returns those that there were.

        To be called last in a transaction: the hooks may advance the clock.
        """
        deleted = device_rows.delete_devices(txn, user_id, device_ids)
        # Of the others nothing is deleted: one may be made by a login that is just committed, and
        # then keeps its token.
        tokens.delete_of_devices(txn, user_id, deleted)
        for device_id in deleted:
            for hook in self._hooks.device_deleted:
                hook(txn, user_id, device_id)
        for device_id in deleted:
            for hook in self._hooks.device_changed:
                hook(txn, user_id, device_id)
        return deleted

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _requester(row: tokens.AccessTokenRow, hashed: bytes) -> Requester:
    return Requester(
        user_id=UserID(row.user_id),
        device_id=row.device_id or None,
        is_guest=row.is_guest,
        is_admin=row.is_admin,
        token_hash=hashed,
        is_shadow_banned=row.shadow_banned,
        is_locked=row.locked,
        is_suspended=row.suspended,
        is_rate_limited=row.rate is None or row.rate[0] > 0,
        rate=row.rate,
        puppeteer=None if row.puppeteer is None else UserID(row.puppeteer),
    )


def _too_many_devices(most: int) -> MatrixError:
    return user_limit_exceeded(
        DEVICES_EXPLAINED,
        error=f"An account has at most {most} devices. Log out some that you do not use.",
    )


def clipped_device_name(name: str | None) -> str | None:
    """A device's name, cut to a length that every client can show."""
    return None if name is None else name[:MAX_DEVICE_NAME_CHARACTERS].replace("\0", "")


def check_device_id(device_id: str) -> None:
    """Raises MatrixError 400 M_INVALID_PARAM for what cannot be the ID of a device."""
    size = len(device_id.encode("utf-8", "surrogatepass"))
    if not 0 < size <= MAX_DEVICE_ID_BYTES or "\x00" in device_id:
        raise MatrixError(400, "M_INVALID_PARAM", "This is not a valid device ID.")
