-- Rooms, events and state. Owners: storage/rooms.py, storage/events.py, storage/state.py,
-- storage/memberships.py.

CREATE TABLE rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    -- bumped by every append: a cached head is fresh if and only if this is equal
    head_version BIGINT NOT NULL,
    -- depth of the deepest forward extremity
    depth BIGINT NOT NULL,
    -- JSON list of the forward extremities' event IDs
    extremities TEXT NOT NULL,
    -- root of the current state; NULL while no local user was ever joined
    state_root BLOB,
    -- head_version of the last change of the current state
    state_version BIGINT NOT NULL,
    -- running count of notifying and of highlighting events outside threads
    notify_total BIGINT NOT NULL,
    highlight_total BIGINT NOT NULL,
    -- last position at which something happened in the timeline
    last_pos BIGINT NOT NULL,
    created_ts BIGINT NOT NULL
);

CREATE TABLE events (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_nid BIGINT NOT NULL,
    -- position in the log; negative: fetched history, never announced; NULL: outlier
    pos BIGINT,
    depth BIGINT NOT NULL,
    type TEXT NOT NULL,
    -- NULL: not a state event
    state_key TEXT,
    sender TEXT NOT NULL,
    origin_server_ts BIGINT NOT NULL,
    -- federation form; redacted in place when a redaction applies
    json TEXT NOT NULL,
    -- 0 accepted, 1 soft-failed, 2 rejected
    status SMALLINT NOT NULL,
    -- roots of the state before and after the event
    state_before BLOB,
    state_after BLOB,
    -- event ID of the state event that this one took the place of
    replaces_state TEXT,
    -- event ID of the redaction that applies
    redacted_by TEXT,
    -- m.relates_to
    relates_to TEXT,
    rel_type TEXT,
    -- event ID of the root of the thread that the event is in
    thread_root TEXT,
    contains_url BOOLEAN NOT NULL,
    -- 0 silent, 1 notifies the room, 2 also highlights for the room
    notify SMALLINT NOT NULL,
    -- the room's running counts, this event included
    notify_total BIGINT NOT NULL,
    highlight_total BIGINT NOT NULL,
    -- transaction of the sending client: device, "send/TYPE" or "redact/EVENT", ID
    txn_device TEXT,
    txn_scope TEXT,
    txn_id TEXT
);
CREATE UNIQUE INDEX events_timeline ON events (room_nid, pos);
CREATE INDEX events_depth ON events (room_nid, depth, pos);
CREATE INDEX events_pos ON events (pos);
CREATE INDEX events_time ON events (room_nid, origin_server_ts);
CREATE INDEX events_relations ON events (relates_to, pos) WHERE relates_to IS NOT NULL;
CREATE INDEX events_threads ON events (room_nid, pos) WHERE thread_root IS NOT NULL;
CREATE INDEX events_txn ON events (room_nid, sender, txn_device, txn_id) WHERE txn_id IS NOT NULL;
CREATE INDEX events_own ON events (room_nid, sender, pos) WHERE notify > 0;
CREATE INDEX events_redacted ON events (room_nid, pos) WHERE redacted_by IS NOT NULL;

-- redactions whose event is not known yet
CREATE TABLE pending_redactions (
    redacts TEXT NOT NULL,
    redaction_id TEXT NOT NULL,
    PRIMARY KEY (redacts, redaction_id)
);

CREATE TABLE state_keys (
    state_key_nid BIGINT NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
);

-- content-addressed nodes of the state trees: never changed, shared by equal states of a room
CREATE TABLE state_nodes (
    room_nid BIGINT NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (room_nid, hash)
);

-- the root of the room's current state from this position on
CREATE TABLE room_states (
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (room_nid, pos)
);
CREATE INDEX room_states_pos ON room_states (pos);

-- projection of the current state
CREATE TABLE current_state (
    room_nid BIGINT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (room_nid, type, state_key)
);
CREATE INDEX current_state_type ON current_state (type, state_key);

-- projection of the current m.room.member events
CREATE TABLE memberships (
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    sender TEXT NOT NULL,
    -- position of the membership event
    pos BIGINT NOT NULL,
    is_local BOOLEAN NOT NULL,
    -- the user forgot the room after leaving it
    forgotten BOOLEAN NOT NULL,
    displayname TEXT,
    avatar_url TEXT,
    -- JSON list of stripped state, for local users with an invite or a knock
    stripped_state TEXT,
    PRIMARY KEY (room_nid, user_id)
);
CREATE INDEX memberships_user ON memberships (user_id, membership);
CREATE INDEX memberships_room ON memberships (room_nid, membership, is_local);

-- every change of a membership, in order
CREATE TABLE membership_log (
    pos BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    -- membership before; "leave" if none
    previous TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    sender TEXT NOT NULL
);
CREATE INDEX membership_log_user ON membership_log (user_id, pos);
CREATE INDEX membership_log_room ON membership_log (room_nid, pos);
CREATE INDEX membership_log_member ON membership_log (room_nid, user_id, pos);

-- what an event does to one user where its class does not say it: mentions, own push rules
CREATE TABLE notify_marks (
    user_id TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    thread_root TEXT,
    -- 1 if it notifies the user, and if it highlights
    notify SMALLINT NOT NULL,
    highlight SMALLINT NOT NULL,
    PRIMARY KEY (user_id, room_nid, pos)
);
