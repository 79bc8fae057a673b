-- Rooms of which this server does not know all members yet. Owner: storage/partial_rooms.py.
CREATE TABLE partial_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY,
    -- event ID of the join before which the whole state is to be got
    join_event_id TEXT NOT NULL,
    started_ts BIGINT NOT NULL
);
