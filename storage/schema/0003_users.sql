-- Accounts, devices, tokens and profiles. Owners: storage/users.py, devices.py, tokens.py,
-- one_time_tokens.py, uia_sessions.py, profiles.py, registration_tokens.py, threepids.py,
-- accepted_terms.py.

CREATE TABLE users (
    user_id TEXT NOT NULL PRIMARY KEY,
    -- argon2id, or bcrypt when imported; NULL: no login by password
    password_hash TEXT,
    -- kind given by administrators' tools, such as "bot"
    user_type TEXT,
    is_guest BOOLEAN NOT NULL,
    is_admin BOOLEAN NOT NULL,
    locked BOOLEAN NOT NULL,
    suspended BOOLEAN NOT NULL,
    -- asked to have their events redacted for newcomers
    erased BOOLEAN NOT NULL,
    -- NULL: active
    deactivated_ts BIGINT,
    created_ts BIGINT NOT NULL
);

CREATE TABLE devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    created_ts BIGINT NOT NULL,
    last_seen_ts BIGINT,
    last_seen_ip TEXT,
    last_seen_user_agent TEXT,
    PRIMARY KEY (user_id, device_id)
);

CREATE TABLE access_tokens (
    -- SHA-256 of the token
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    -- NULL: lives as long as its device
    expires_ts BIGINT,
    -- hash of the refresh token given out with it
    refresh_hash BLOB,
    used BOOLEAN NOT NULL
);

CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);

CREATE INDEX access_tokens_refresh ON access_tokens (refresh_hash);

CREATE TABLE refresh_tokens (
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT,
    -- the token that it was exchanged for; this one ends when that one is first used
    next_hash BLOB
);

CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);

CREATE INDEX refresh_tokens_next ON refresh_tokens (next_hash);

CREATE TABLE one_time_tokens (
    -- "login", "openid", "nonce"
    purpose TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    user_id TEXT,
    expires_ts BIGINT NOT NULL,
    PRIMARY KEY (purpose, token_hash)
);

CREATE INDEX one_time_tokens_expires ON one_time_tokens (expires_ts);

CREATE INDEX one_time_tokens_user ON one_time_tokens (user_id);

CREATE TABLE uia_sessions (
    session_id TEXT NOT NULL PRIMARY KEY,
    -- what the session is for: method, path and user
    operation TEXT NOT NULL,
    -- hash of the body without secrets, fixed once a stage is done
    body_hash BLOB,
    -- JSON object: stage to what it established
    completed TEXT NOT NULL,
    -- JSON: what came of the request, for its repetition
    outcome TEXT,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL
);

CREATE INDEX uia_sessions_expires ON uia_sessions (expires_ts);

CREATE TABLE profiles (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    -- JSON
    value TEXT NOT NULL,
    PRIMARY KEY (user_id, field)
);

CREATE TABLE registration_tokens (
    token TEXT NOT NULL PRIMARY KEY,
    -- NULL: any number
    uses_allowed BIGINT,
    completed BIGINT NOT NULL,
    -- NULL: never
    expires_ts BIGINT
);

CREATE TABLE threepids (
    -- "email" or "msisdn"
    medium TEXT NOT NULL,
    -- lower case, or digits with the country code
    address TEXT NOT NULL,
    user_id TEXT NOT NULL,
    validated_ts BIGINT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (medium, address)
);

CREATE INDEX threepids_user ON threepids (user_id);

CREATE TABLE accepted_terms (
    user_id TEXT NOT NULL,
    document TEXT NOT NULL,
    version TEXT NOT NULL,
    accepted_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, document)
);
