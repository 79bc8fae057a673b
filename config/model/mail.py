"""Sending e-mail, captchas, and servers that know addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path
from typing import Literal

from config.types import Duration, option

_PLAIN = re.compile(r"[^\x00-\x1f\x7f]+")


def _check_sender(sender: str) -> str | None:
    if _PLAIN.fullmatch(sender) is None or "@" not in parseaddr(sender)[1]:
        return "is not an address such as Hearth <noreply@example.org>"
    return None


def _check_https(url: str) -> str | None:
    return None if url.startswith("https://") else "must start with https://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """Sending e-mail: proofs of addresses, and new passwords for those who forgot theirs."""

    smtp_host: str = option("localhost", "The mail server.")
    smtp_port: int = option(25, "Its port.", minimum=1, maximum=65535)
    tls: Literal["starttls", "tls", "none"] = option(
        "starttls",
        "starttls: the connection is encrypted before anything is said, or nothing is sent. "
        "tls: encrypted from the start (port 465). none: only for a server on the same machine.",
    )
    ca_files: tuple[Path, ...] = option(
        (), "PEM files of certificate authorities trusted besides the system's."
    )
    smtp_user: str | None = option(None, "User name there.", example="hearth")
    smtp_password: str | None = option(None, "Password there.", secret=True, example='"a password"')
    # `from` is a word of the language; the loader drops the underscore.
    from_: str = option(
        doc="The sender's address.", check=_check_sender, example="Hearth <noreply@example.org>"
    )
    link_lifetime: Duration = option(Duration(3_600_000), "How long links in messages are good.")
    allowed_domains: tuple[str, ...] = option(
        (), "Domains whose addresses people can use; none named: all.", example="[example.org]"
    )
    conceal_registered: bool = option(
        False,
        "Whether nobody is told if an address belongs to an account: messages go out as if, and "
        "say so to the owner of the address alone.",
    )
    templates: Path | None = option(
        None,
        "A directory with messages of your own: NAME.txt and NAME.html as in "
        "homeserver/outbound/templates.",
        example="./templates",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recaptcha:
    """A captcha at registration: reCAPTCHA, or a service that is compatible with it."""

    verify_url: str = option(
        "https://www.google.com/recaptcha/api/siteverify",
        "Where answers are verified.",
        check=_check_https,
    )
    script_url: str = option(
        "https://www.recaptcha.net/recaptcha/api.js",
        "The script of the captcha, for clients that show this server's own page.",
        check=_check_https,
    )
    public_key: str = option(doc="The site's public key.", example='"a key"')
    private_key: str = option(doc="The site's private key.", secret=True, example='"a key"')
