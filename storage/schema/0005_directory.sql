-- Room aliases and the published room directory. Owners: storage/aliases.py,
-- storage/published.py.

CREATE TABLE aliases (
    alias TEXT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    -- user ID of who made it
    creator TEXT NOT NULL
);
CREATE INDEX aliases_room ON aliases (room_nid);

CREATE TABLE published_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY
);
