"""Who may call the endpoints for administrators."""

from __future__ import annotations

import re

from homeserver.api.endpoints import ENDPOINTS
from homeserver.users.accounts import Accounts
from homeserver.web.endpoint import Auth, EndpointDeclaration, declaration_of
from tests.homeserver.api.admin.case import V2, AdminTestCase

PREFIX = "/_synapse/admin/"
OPEN = {
    ("GET", "/_synapse/admin/v1/register"),
    ("POST", "/_synapse/admin/v1/register"),
    ("GET", "/_synapse/admin/v1/server_version"),
}


def admin_endpoints() -> list[EndpointDeclaration]:
    found = [declaration_of(function) for function in ENDPOINTS]
    return [each for each in found if each.path.startswith(PREFIX)]


class AuthorisationTest(AdminTestCase):
    async def test_nobody_but_administrators(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        tried = 0
        for declaration in admin_endpoints():
            if (declaration.method, declaration.path) in OPEN:
                continue
            self.assertIs(declaration.auth, Auth.ADMIN, declaration.path)
            for template in declaration.paths:
                path = re.sub(r"\{[^}]*\}", "x", template)
                answer = await self.bob.call(declaration.method, path, {})
                self.assert_error(answer, 403, "M_FORBIDDEN")
                answer = await self.server.client.request(declaration.method, path, {})
                self.assert_error(answer, 401, "M_MISSING_TOKEN")
                tried += 1
        self.assertGreater(tried, 50)

    async def test_rights_that_end(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V2}/users"
        await self.alice.ok("GET", path)
        accounts = self.server.homeserver.services[Accounts]
        await accounts.set_locked(self.alice.user_id, True)
        self.assert_error(await self.alice.call("GET", path), 401, "M_USER_LOCKED")
        await accounts.set_locked(self.alice.user_id, False)
        await self.alice.ok("GET", path)
        await accounts.set_admin(self.alice.user_id, False)
        self.assert_error(await self.alice.call("GET", path), 403, "M_FORBIDDEN")
