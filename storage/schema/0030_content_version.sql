-- Proof that what is kept in memory of a room's contents is right. Owner: storage/rooms.py.

-- How often what clients are shown of the room changed otherwise than by events at its end or by
-- another state: by redactions, history that was fetched or removed, other verdicts
ALTER TABLE rooms ADD COLUMN content_version BIGINT NOT NULL DEFAULT 0;
