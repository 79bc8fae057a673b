-- The room is in the index, so that looking up a key of many rooms never goes through that key in
-- all other rooms, whichever index PostgreSQL takes.

DROP INDEX current_state_type;
CREATE INDEX current_state_type ON current_state (type, state_key, room_nid);
