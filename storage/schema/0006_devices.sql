-- Messages between devices, and changes of device lists. Owners: storage/to_device.py,
-- storage/device_lists.py.

CREATE TABLE to_device_messages (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- one message of a device at most has this position
    pos BIGINT NOT NULL,
    -- numbers the messages of a device without gaps: tells how many are waiting
    seq BIGINT NOT NULL,
    -- JSON object as the device gets it: sender, type, content
    message TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
);

-- transactions of sending devices, so that a repeated request sends nothing
CREATE TABLE to_device_transactions (
    user_id TEXT NOT NULL,
    -- "" for a sender without a device
    device_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    sent_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, event_type, txn_id)
);
CREATE INDEX to_device_transactions_age ON to_device_transactions (user_id, device_id, sent_ts);

-- a user's devices, or the keys that vouch for them, changed
CREATE TABLE device_list_changes (
    pos BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL
);
CREATE INDEX device_list_changes_user ON device_list_changes (user_id, pos);
