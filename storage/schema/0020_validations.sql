-- Proving that an e-mail address is one's own, and addresses published at identity servers.
-- Owners: storage/validations.py, storage/bound_threepids.py, storage/uia_sessions.py (details).

CREATE TABLE threepid_validations (
    sid TEXT NOT NULL PRIMARY KEY,
    -- what it is for: "register", "password", "add"; a proof given for one is none for another
    purpose TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    client_secret TEXT NOT NULL,
    send_attempt BIGINT NOT NULL,
    next_link TEXT,
    -- wrong tokens that were handed in
    failures BIGINT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL,
    -- NULL: not yet proved
    validated_ts BIGINT
);

CREATE UNIQUE INDEX threepid_validations_asked
    ON threepid_validations (purpose, medium, address, client_secret);

CREATE INDEX threepid_validations_expires ON threepid_validations (expires_ts);

CREATE TABLE threepid_validation_tokens (
    sid TEXT NOT NULL,
    -- SHA-256 of a token that was sent
    token_hash BLOB NOT NULL,
    PRIMARY KEY (sid, token_hash)
);

CREATE TABLE bound_threepids (
    user_id TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    id_server TEXT NOT NULL,
    PRIMARY KEY (user_id, medium, address, id_server)
);

-- JSON object: whose session it is, its flows, and what was handed in and is not yet proved
ALTER TABLE uia_sessions ADD COLUMN details TEXT;
