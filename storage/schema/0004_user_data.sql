-- What users keep about themselves and about rooms. Owners: storage/account_data.py,
-- storage/push_rules.py, storage/receipts.py.

CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    -- empty: global. Any room: also one that this server does not know (yet)
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    -- JSON object
    content TEXT NOT NULL,
    -- position of the last change
    pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_pos ON account_data (user_id, pos);

-- only of users whose rules differ from the defaults in any way
CREATE TABLE push_rules (
    user_id TEXT NOT NULL PRIMARY KEY,
    -- JSON: what differs
    rules TEXT NOT NULL,
    -- events must be judged for this user one by one
    exceptional BOOLEAN NOT NULL,
    pos BIGINT NOT NULL
);

-- the newest receipt of each kind
CREATE TABLE receipts (
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    -- m.read or m.read.private
    type TEXT NOT NULL,
    -- empty: unthreaded; "main" or the event ID of a thread's root
    thread_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- position of the event in the log
    event_pos BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    -- position of the receipt itself
    pos BIGINT NOT NULL,
    PRIMARY KEY (room_nid, user_id, type, thread_id)
);
CREATE INDEX receipts_pos ON receipts (room_nid, pos);
CREATE INDEX receipts_user ON receipts (user_id, pos);
