"""The standard error response of the client-server API, as an exception.

Client-server API, "Standard error response". Services raise `MatrixError` through the
constructors below; `homeserver.web.router` alone turns it into a response.
"""

from __future__ import annotations

from typing import Any


class MatrixError(Exception):
    """An error that the caller of an API is told about.

    Parameters: HTTP `status`, `errcode` of the specification, `error` (a sentence for people),
    and `extra` keys of the response body.
    """

    def __init__(self, status: int, errcode: str, error: str, **extra: Any) -> None:
        super().__init__(f"{status} {errcode}: {error}")
        self.status = status
        self.errcode = errcode
        self.error = error
        self.extra = extra
        self.headers: dict[str, str] = {}
        """Headers that the response carries besides the usual ones."""

    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        return {"errcode": self.errcode, "error": self.error, **self.extra}


def not_json(error: str = "The body is not JSON.") -> MatrixError:
    return MatrixError(400, "M_NOT_JSON", error)


def bad_json(error: str) -> MatrixError:
    return MatrixError(400, "M_BAD_JSON", error)


def missing_param(name: str) -> MatrixError:
    return MatrixError(400, "M_MISSING_PARAM", f"Missing parameter: {name}.")


def invalid_param(error: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_PARAM", error)


def bad_state(error: str) -> MatrixError:
    return MatrixError(400, "M_BAD_STATE", error)


def unknown(error: str, status: int = 400) -> MatrixError:
    return MatrixError(status, "M_UNKNOWN", error)


def unknown_pos() -> MatrixError:
    """Of sliding sync (MSC4186): the client starts its connection anew."""
    return MatrixError(400, "M_UNKNOWN_POS", "The position is not known (any more).")


def forbidden(error: str = "You are not allowed to do this.") -> MatrixError:
    return MatrixError(403, "M_FORBIDDEN", error)


def guest_access_forbidden() -> MatrixError:
    return MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "Guests may not do this.")


def not_found(error: str = "Not found.") -> MatrixError:
    return MatrixError(404, "M_NOT_FOUND", error)


def unrecognized(error: str = "This server does not know this endpoint.") -> MatrixError:
    return MatrixError(404, "M_UNRECOGNIZED", error)


def method_not_allowed(error: str = "This endpoint does not take this method.") -> MatrixError:
    return MatrixError(405, "M_UNRECOGNIZED", error)


def missing_token() -> MatrixError:
    return MatrixError(401, "M_MISSING_TOKEN", "An access token is required.")


def unknown_token(soft_logout: bool = False) -> MatrixError:
    extra = {"soft_logout": True} if soft_logout else {}
    return MatrixError(401, "M_UNKNOWN_TOKEN", "This access token is not valid.", **extra)


def limit_exceeded(retry_after_ms: int) -> MatrixError:
    """Refused by a rate limit; the router adds the `Retry-After` header from `retry_after_ms`."""
    return MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests.", retry_after_ms=retry_after_ms)


def too_large(error: str = "The request is too large.") -> MatrixError:
    return MatrixError(413, "M_TOO_LARGE", error)


def user_deactivated() -> MatrixError:
    return MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated.")


def exclusive(error: str) -> MatrixError:
    """An identifier belongs to an application service, or not to this one."""
    return MatrixError(400, "M_EXCLUSIVE", error)


def user_in_use() -> MatrixError:
    return MatrixError(400, "M_USER_IN_USE", "This user ID is already taken.")


def invalid_username(error: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_USERNAME", error)


def room_in_use(error: str = "This room alias is already taken.") -> MatrixError:
    return MatrixError(400, "M_ROOM_IN_USE", error)


def unsupported_room_version(version: str) -> MatrixError:
    return MatrixError(
        400, "M_UNSUPPORTED_ROOM_VERSION", f"Room version {version!r} is not supported."
    )


def internal() -> MatrixError:
    return MatrixError(500, "M_UNKNOWN", "Internal server error.")


def unavailable() -> MatrixError:
    """What the server needs for an answer is away; clients try again later."""
    return MatrixError(503, "M_UNKNOWN", "This server is not available now. Try again later.")


def user_locked() -> MatrixError:
    """Client-server API, "Account locking"."""
    return MatrixError(401, "M_USER_LOCKED", "This account is locked.", soft_logout=True)


def user_suspended() -> MatrixError:
    """Client-server API, "Account suspension"."""
    return MatrixError(403, "M_USER_SUSPENDED", "This account is suspended.")


def resource_limit_exceeded(admin_contact: str, error: str | None = None) -> MatrixError:
    """The server has reached a limit of its own; `admin_contact` is a URI. Writing calls only."""
    return MatrixError(
        403,
        "M_RESOURCE_LIMIT_EXCEEDED",
        error or "This server has reached a limit. Please contact its administrator.",
        admin_contact=admin_contact,
    )


def user_limit_exceeded(
    info_uri: str, can_upgrade: bool = False, error: str | None = None
) -> MatrixError:
    """The user has reached a limit; `info_uri` explains it, and the way up if `can_upgrade`."""
    extra = {"can_upgrade": True} if can_upgrade else {}
    return MatrixError(
        403,
        "M_USER_LIMIT_EXCEEDED",
        error or "You have reached a limit of your account.",
        info_uri=info_uri,
        **extra,
    )
