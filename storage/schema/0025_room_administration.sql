-- What administrators do to rooms. Owners: storage/blocked_rooms.py, storage/room_tasks.py,
-- storage/gone_rooms.py, storage/state_nodes.py.

-- rooms that users of this server cannot join; they need not be known here
CREATE TABLE blocked_rooms (
    room_id TEXT NOT NULL PRIMARY KEY,
    blocked_by TEXT NOT NULL,
    blocked_ts BIGINT NOT NULL
);

-- purges and deletions: under way, and what became of them
CREATE TABLE room_tasks (
    task_id TEXT NOT NULL PRIMARY KEY,
    -- "purge_history" or "delete_room"
    kind TEXT NOT NULL,
    room_id TEXT NOT NULL,
    -- "scheduled", "active", "complete", "failed"
    status TEXT NOT NULL,
    -- JSON: what was asked for
    wanted TEXT NOT NULL,
    -- JSON: how far it is
    progress TEXT NOT NULL,
    error TEXT,
    -- nobody can enter the room while this is true: it is being removed
    is_closing BOOLEAN NOT NULL,
    created_ts BIGINT NOT NULL,
    finished_ts BIGINT
);
CREATE INDEX room_tasks_room ON room_tasks (room_id);

-- rooms that were removed, for users of this server who were there: their clients are told once
CREATE TABLE gone_rooms (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    -- the number that the room had
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    -- the event by which the user left: its ID, and its JSON in the federation form
    event_id TEXT,
    event TEXT,
    version TEXT NOT NULL,
    PRIMARY KEY (user_id, room_id)
);
CREATE INDEX gone_rooms_pos ON gone_rooms (user_id, pos);

-- the clock when the node was last written: what is newer than the beginning of a collection is kept
ALTER TABLE state_nodes ADD COLUMN saved BIGINT NOT NULL DEFAULT 0;

CREATE INDEX notify_marks_room ON notify_marks (room_nid, pos);
CREATE INDEX pending_redactions_by ON pending_redactions (redaction_id);
