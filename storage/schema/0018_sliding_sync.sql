-- Simplified sliding sync. Owners: storage/sliding_positions.py; storage/windows.py for the index.

-- What each connection of a device was sent, at the positions that it may come back with.
-- Rows never change but for `used_ts`.
CREATE TABLE sliding_positions (
    position BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    conn_id TEXT NOT NULL,
    -- the position of the request that it answers; 0: of none
    parent BIGINT NOT NULL,
    -- JSON, see homeserver/sync/sliding/connection.py
    state TEXT NOT NULL,
    used_ts BIGINT NOT NULL
);
CREATE INDEX sliding_positions_connection ON sliding_positions (user_id, device_id, conn_id);
CREATE INDEX sliding_positions_age ON sliding_positions (used_ts);

-- Events that bring a room to the top of a room list.
CREATE INDEX events_bump ON events (room_nid, pos) WHERE type IN ('m.room.message',
    'm.room.encrypted', 'm.room.create', 'm.sticker', 'm.call.invite', 'm.poll.start',
    'org.matrix.msc3381.poll.start', 'm.beacon_info', 'org.matrix.msc3672.beacon_info');
