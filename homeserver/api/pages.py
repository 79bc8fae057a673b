"""HTML pages of the server itself: Jinja2 templates, everything escaped, scripts by nonce only."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from homeserver.core.errors import MatrixError, invalid_param
from homeserver.web.endpoint import Request, Response

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_FIELDS = 20


class Pages:
    """Renders pages."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name

    @cached_property
    def _environment(self) -> Environment:
        # Few of those who use a server ever see a page of its own.
        from jinja2 import Environment, PackageLoader, StrictUndefined

        return Environment(
            loader=PackageLoader("homeserver.api", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(
        self, name: str, status: int = 200, *, captcha: bool = False, **values: Any
    ) -> Response:
        """A page made of a template. The script of a `captcha` loads what it needs."""
        nonce = secrets.token_urlsafe(16)
        text = self._environment.get_template(name).render(
            values, server_name=self._server_name, nonce=nonce
        )
        policy = f"default-src 'none'; base-uri 'none'; script-src 'nonce-{nonce}'"
        if captcha:
            policy += (
                " 'strict-dynamic'; style-src 'unsafe-inline'; frame-src https:;"
                " connect-src https:; img-src https:"
            )
        else:
            policy += f"; style-src 'nonce-{nonce}'; connect-src 'self'"
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return Response(status, text.encode(), headers)

    def error(self, error: MatrixError) -> Response:
        """A page that tells of an error."""
        return self.page("error.html", error.status, error=error.error)


def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that was sent. Raises MatrixError 400 M_INVALID_PARAM."""
    try:
        pairs = parse_qsl(
            request.body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS
        )
    except (UnicodeDecodeError, ValueError):
        raise invalid_param("This is no form.") from None
    fields = dict(pairs)
    if any("\x00" in value for value in fields.values()):
        raise invalid_param("NUL is not allowed.")
    return fields
