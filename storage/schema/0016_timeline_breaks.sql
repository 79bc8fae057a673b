-- Events right before which the timeline had a gap when they came: what was got since has negative
-- positions, so that in order of position something is missing there for ever.
-- Owner: storage/gaps.py.
CREATE TABLE timeline_breaks (
    room_nid BIGINT NOT NULL,
    -- of the event
    pos BIGINT NOT NULL,
    PRIMARY KEY (room_nid, pos)
);

INSERT INTO timeline_breaks (room_nid, pos)
SELECT DISTINCT e.room_nid, e.pos FROM event_gaps g
JOIN events e ON e.event_id = g.successor AND e.room_nid = g.room_nid
WHERE e.pos > 0;
