-- What the other servers have not got yet. Owners: storage/destinations.py,
-- storage/outgoing_to_device.py, storage/device_updates.py.

-- destinations are divided into shards; one process at a time serves a shard
CREATE TABLE destination_shards (
    shard INTEGER NOT NULL PRIMARY KEY,
    -- destinations that have no row in `destinations` have got everything up to here
    pos BIGINT NOT NULL
);

-- only those that are behind or that cannot be reached
CREATE TABLE destinations (
    server_name TEXT NOT NULL PRIMARY KEY,
    shard INTEGER NOT NULL,
    -- it has got everything up to here
    pos BIGINT NOT NULL,
    -- milliseconds since 1970; NULL: the last transaction arrived
    failing_since BIGINT,
    retry_at BIGINT NOT NULL,
    -- milliseconds between the last two attempts
    retry_interval BIGINT NOT NULL
);
CREATE INDEX destinations_shard ON destinations (shard);

-- events for a destination that is not in their room (any more): kicks, revoked invites
CREATE TABLE destination_events (
    server_name TEXT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (server_name, pos)
);

-- messages for devices of other servers, until those have them
CREATE TABLE outgoing_to_device (
    destination TEXT NOT NULL,
    pos BIGINT NOT NULL,
    -- JSON: content of an m.direct_to_device
    content TEXT NOT NULL,
    PRIMARY KEY (destination, pos)
);
CREATE INDEX outgoing_to_device_pos ON outgoing_to_device (pos);

-- changes of local users' devices, in order; an empty device ID: of their cross-signing keys
CREATE TABLE device_updates (
    pos BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    updated_ts BIGINT NOT NULL
);
CREATE INDEX device_updates_user ON device_updates (user_id, pos);
CREATE INDEX device_updates_age ON device_updates (updated_ts);

CREATE INDEX events_outgoing_room ON events (room_nid, pos) WHERE outgoing;
CREATE INDEX receipts_news ON receipts (pos);
