-- What proposals (MSCs) need that clients use already.
-- Owners: storage/sticky_events.py, storage/delayed_events.py (sticky_ms),
-- storage/profile_changes.py, storage/redacted_contents.py.

-- Events that everybody in the room is told of while they are sticky, however long the timeline is.
CREATE TABLE sticky_events (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    sender TEXT NOT NULL,
    -- from where on clients are told; NULL: soft-failed, until its sender's membership changes
    pos BIGINT,
    expires_ts BIGINT NOT NULL
);

CREATE INDEX sticky_events_pos ON sticky_events (pos);
CREATE INDEX sticky_events_room ON sticky_events (room_nid, pos);
CREATE INDEX sticky_events_expires ON sticky_events (expires_ts);

-- For how long an event is sticky once it is sent.
ALTER TABLE delayed_events ADD COLUMN sticky_ms BIGINT;

-- When a field of a local user's profile was last set or removed.
CREATE TABLE profile_changes (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, field)
);

CREATE INDEX profile_changes_pos ON profile_changes (pos);

-- What redacted events were before, for moderators, for a time.
CREATE TABLE redacted_contents (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    sender TEXT NOT NULL,
    json TEXT NOT NULL,
    redacted_ts BIGINT NOT NULL
);

CREATE INDEX redacted_contents_age ON redacted_contents (redacted_ts);
CREATE INDEX redacted_contents_sender ON redacted_contents (sender);
