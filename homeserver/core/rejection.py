"""What the authorisation rules raise: an event that may not happen."""

from __future__ import annotations


class EventRejected(Exception):
    """An event fails the authorisation rules of its room version.

    `rule` is the number of the failed rule in the list of room version 12, whatever the version
    of the event ("5.3.2"); a rule that only older versions have carries the last version that
    numbers it in front ("v5/4.2", "v2/11.3"). `reason` is a sentence for people.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{rule}: {reason}")
        self.rule = rule
        self.reason = reason
