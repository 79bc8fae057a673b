-- Key backups, dehydrated devices, delayed events, thread subscriptions. Owners:
-- storage/key_backups.py, dehydrated_devices.py, delayed_events.py, thread_subscriptions.py.

-- the number of a user's last backup, so that the number of a deleted one is not used again
CREATE TABLE key_backup_numbers (
    user_id TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

CREATE TABLE key_backups (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    -- JSON
    auth_data TEXT NOT NULL,
    -- counts the changes of the keys
    etag BIGINT NOT NULL,
    keys BIGINT NOT NULL,
    PRIMARY KEY (user_id, version)
);

CREATE TABLE backed_up_keys (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    session_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count BIGINT NOT NULL,
    is_verified BOOLEAN NOT NULL,
    -- JSON
    session_data TEXT NOT NULL,
    PRIMARY KEY (user_id, version, session_id, room_id)
);
CREATE INDEX backed_up_keys_room ON backed_up_keys (user_id, version, room_id);

-- devices that receive keys while their user has none at hand
CREATE TABLE dehydrated_devices (
    user_id TEXT NOT NULL PRIMARY KEY,
    device_id TEXT NOT NULL,
    -- JSON
    device_data TEXT NOT NULL
);

-- events that users asked to have sent later
CREATE TABLE delayed_events (
    delay_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- the client's transaction: kind of request, and its ID
    scope TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    state_key TEXT,
    -- JSON
    content TEXT NOT NULL,
    -- milliseconds
    delay BIGINT NOT NULL,
    running_since BIGINT NOT NULL,
    send_ts BIGINT NOT NULL,
    -- a process sends it; another may when this time is over
    claimed_until BIGINT NOT NULL,
    -- NULL: it is still to be sent
    finalised_ts BIGINT,
    event_id TEXT,
    -- JSON: why it was not sent
    error TEXT
);
CREATE INDEX delayed_events_due ON delayed_events (send_ts) WHERE finalised_ts IS NULL;
CREATE INDEX delayed_events_over ON delayed_events (finalised_ts) WHERE finalised_ts IS NOT NULL;
CREATE INDEX delayed_events_user ON delayed_events (user_id, running_since);
CREATE UNIQUE INDEX delayed_events_txn
    ON delayed_events (user_id, device_id, scope, txn_id) WHERE txn_id <> '';

CREATE TABLE thread_subscriptions (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    -- of the last change
    pos BIGINT NOT NULL,
    subscribed BOOLEAN NOT NULL,
    automatic BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, room_id, thread_id)
);
CREATE INDEX thread_subscriptions_pos ON thread_subscriptions (user_id, pos);
