"""Services around users: accounts, sessions, profiles and account data."""
