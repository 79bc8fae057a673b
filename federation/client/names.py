"""What name servers say."""

from __future__ import annotations

from dataclasses import dataclass


class LookupFailed(Exception):
    """The name servers gave no answer, so that it is not known whether there is one."""


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """An SRV record; `target` is empty where the record says that there is no such service."""

    priority: int
    weight: int
    port: int
    target: str
    ttl_s: int
