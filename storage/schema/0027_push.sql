-- What reaches people who are not looking. Owners: storage/pushers.py, storage/push_queue.py,
-- storage/push_log.py, storage/vapid_keys.py.

-- where a user wants to be told: a gateway, a browser's push service, an e-mail address
CREATE TABLE pushers (
    pusher_nid BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    -- "http", "webpush" or "email"
    kind TEXT NOT NULL,
    app_display_name TEXT NOT NULL,
    device_display_name TEXT NOT NULL,
    profile_tag TEXT,
    lang TEXT NOT NULL,
    -- JSON object
    data TEXT NOT NULL,
    -- the session that set it, and with which it goes
    device_id TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    -- only of webpush: the client has shown that it hears
    activated BOOLEAN NOT NULL,
    ack_token TEXT,
    ack_expires_ts BIGINT,
    -- what links in messages prove themselves by
    secret TEXT NOT NULL,
    -- what is waited for and slowed down together
    gateway TEXT NOT NULL,
    set_ts BIGINT NOT NULL,
    -- nothing up to this position is told
    since BIGINT NOT NULL,
    -- the count that the device shows; NULL: not known
    badge BIGINT,
    -- only of email: when the last message was made, and the pause after it
    mailed_ts BIGINT,
    mail_pause BIGINT,
    UNIQUE (user_id, app_id, pushkey)
);
CREATE INDEX pushers_key ON pushers (app_id, pushkey);

-- what is to be told, a row for each pusher and event
CREATE TABLE push_queue (
    pusher_nid BIGINT NOT NULL,
    -- of the event, or of the invite in membership_log
    pos BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    -- JSON: the tweaks that push rules set
    tweaks TEXT NOT NULL,
    queued_ts BIGINT NOT NULL,
    PRIMARY KEY (pusher_nid, pos)
);

-- pushers with anything to do
CREATE TABLE push_work (
    pusher_nid BIGINT NOT NULL PRIMARY KEY,
    gateway TEXT NOT NULL,
    -- raised by whatever is new: the row goes only if nothing came meanwhile
    serial BIGINT NOT NULL,
    due_ts BIGINT NOT NULL,
    -- the count that the device shows may be wrong
    badge BOOLEAN NOT NULL,
    attempts INTEGER NOT NULL,
    owner TEXT,
    claimed_until BIGINT NOT NULL
);
CREATE INDEX push_work_due ON push_work (due_ts);

-- gateways that do not answer as they should
CREATE TABLE push_gateways (
    gateway TEXT NOT NULL PRIMARY KEY,
    attempts INTEGER NOT NULL,
    failing_since BIGINT NOT NULL,
    retry_ts BIGINT NOT NULL
);

-- what became of pushes, for some days
CREATE TABLE push_log (
    user_id TEXT NOT NULL,
    pusher_nid BIGINT NOT NULL,
    -- as in push_queue; 0: about the pusher itself
    pos BIGINT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    kind TEXT NOT NULL,
    room_nid BIGINT,
    event_id TEXT,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_ts BIGINT NOT NULL,
    last_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, pusher_nid, pos)
);
CREATE INDEX push_log_age ON push_log (last_ts);

-- the one key that this server shows to push services (RFC 8292)
CREATE TABLE vapid_keys (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    private_key TEXT NOT NULL
);

INSERT INTO log_readers (name, pos) VALUES ('pushes', 0);
CREATE INDEX notify_marks_pos ON notify_marks (pos);
CREATE INDEX events_loud ON events (room_nid, pos) WHERE notify > 1;
CREATE INDEX events_calls ON events (room_nid, pos) WHERE type IN ('m.call.invite',
    'm.call.answer', 'm.call.reject', 'm.call.hangup', 'm.call.select_answer');
