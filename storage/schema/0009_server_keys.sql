-- Signing keys of other servers. Owner: storage/server_keys.py.

CREATE TABLE server_keys (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    -- unpadded base64
    verify_key TEXT NOT NULL,
    -- ms; of a retired key the time at which it was retired
    valid_until_ts BIGINT NOT NULL,
    is_old BOOLEAN NOT NULL,
    -- the newest answer that lists the key
    answer_hash BLOB NOT NULL,
    PRIMARY KEY (server_name, key_id)
);

-- What servers answered when asked for their keys, which is what a notary passes on.
CREATE TABLE server_key_answers (
    server_name TEXT NOT NULL,
    -- SHA-256 of json
    answer_hash BLOB NOT NULL,
    -- ms, at most a week after fetched_ts
    valid_until_ts BIGINT NOT NULL,
    fetched_ts BIGINT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (server_name, answer_hash)
);
