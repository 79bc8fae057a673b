-- What the state events of a room rest on, by numbers, many in one row (storage/auth_packs.py):
-- written when a resolution of the room's state had to read it from the events themselves.

CREATE TABLE auth_packs (
    room_nid BIGINT NOT NULL,
    first_nid BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (room_nid, first_nid)
);
