"""Storage: one clock, one log, on SQLite or PostgreSQL."""
