"""Users and aliases that application services make when somebody asks for them (Application
Service API, "Querying")."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.appservices.calls import AppserviceCalls
from homeserver.core.appservices import AppserviceRegistration
from homeserver.core.ids import RoomAlias
from storage import users
from storage.database import Database


class Queries:
    """Asks the services in whose namespace something is, one after the other."""

    def __init__(
        self, db: Database, services: Sequence[AppserviceRegistration], calls: AppserviceCalls
    ) -> None:
        self._db = db
        self._services = services
        self._calls = calls

    async def make_alias(self, alias: RoomAlias) -> bool:
        """Whether a service has made an alias that there was not."""
        for service in self._services:
            if service.owns_alias(alias) and await self._calls.has_alias(service, alias):
                return True
        return False

    async def make_user(self, user_id: str) -> bool:
        """Whether a service has made a user whom there was not."""
        owners = [each for each in self._services if each.url and each.owns_user(user_id)]
        if not owners or await self._db.read(users.exists, user_id):
            return False
        for service in owners:
            if await self._calls.has_user(service, user_id):
                return True
        return False
