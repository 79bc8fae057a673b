-- Events without a place in a timeline, as the state of a room that is entered has thousands of,
-- are in no index that only leads to places. What looks for them goes by `events_timeline`.

DROP INDEX events_pos;

CREATE INDEX events_pos ON events (pos) WHERE pos IS NOT NULL;

DROP INDEX events_depth;

CREATE INDEX events_depth ON events (room_nid, depth, pos) WHERE pos IS NOT NULL;

DROP INDEX events_time;

CREATE INDEX events_time ON events (room_nid, origin_server_ts) WHERE pos IS NOT NULL;
