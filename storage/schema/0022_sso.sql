-- Single sign-on. Owners: storage/external_ids.py, storage/sso_sessions.py.

-- whom the people of a provider are here
CREATE TABLE external_ids (
    -- of the configuration
    provider TEXT NOT NULL,
    -- what the provider knows the person by
    external_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (provider, external_id)
);
CREATE INDEX external_ids_user ON external_ids (user_id);

-- people who are on their way to a provider or come back from one
CREATE TABLE sso_sessions (
    -- SHA-256 of the secret in addresses and forms
    session_hash BLOB NOT NULL PRIMARY KEY,
    -- SHA-256 of the secret in the browser's cookie
    browser_hash BLOB NOT NULL,
    -- "sent", "naming" (chooses a user name), "confirming" (is asked about the client)
    stage TEXT NOT NULL,
    provider TEXT NOT NULL,
    -- JSON object: what the stage needs
    details TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL
);
CREATE INDEX sso_sessions_expires ON sso_sessions (expires_ts);
CREATE INDEX sso_sessions_created ON sso_sessions (created_ts);
