-- Rooms shared with other servers. Owners: storage/events.py, storage/rooms.py,
-- storage/room_servers.py, storage/gaps.py.

-- this server sends the event to the other servers of the room
ALTER TABLE events ADD COLUMN outgoing BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX events_outgoing ON events (pos) WHERE outgoing;

-- servers other than this one with joined users
ALTER TABLE rooms ADD COLUMN remote_servers BIGINT NOT NULL DEFAULT 0;

-- which other servers are in a room: a projection of the memberships
CREATE TABLE room_servers (
    room_nid BIGINT NOT NULL,
    server_name TEXT NOT NULL,
    -- joined users; 1 where only another server told that this one is there
    joined BIGINT NOT NULL,
    PRIMARY KEY (room_nid, server_name)
);
CREATE INDEX room_servers_server ON room_servers (server_name);

-- where a room's history is missing: events that are named as predecessors and are not here
CREATE TABLE event_gaps (
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    -- event ID of the event that names it, and that event's depth
    successor TEXT NOT NULL,
    depth BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_id, successor)
);
CREATE INDEX event_gaps_depth ON event_gaps (room_nid, depth);
