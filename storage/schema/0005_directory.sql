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

-- lists that application services keep for the networks that they bridge
CREATE TABLE published_networks (
    -- third_party_instance_id of the list
    instance_id TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    PRIMARY KEY (instance_id, room_nid)
);
CREATE INDEX published_networks_room ON published_networks (room_nid);
