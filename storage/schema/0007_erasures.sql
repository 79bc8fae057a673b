-- Users who asked for their events to be redacted for newcomers. Owner: storage/erasures.py.

CREATE TABLE erased_users (
    user_id TEXT NOT NULL PRIMARY KEY,
    -- who joined a room at this position or later sees their events redacted
    pos BIGINT NOT NULL
);
