"""Single sign-on (Client-server API, "SSO client login/authentication")."""
