-- Filters that clients stored. Owner: storage/filters.py.

CREATE TABLE filters (
    user_id TEXT NOT NULL,
    filter_id BIGINT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);
CREATE INDEX filters_json ON filters (user_id, json);
