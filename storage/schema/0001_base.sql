-- The clock: the position of the last fact that clients are told about. One row.
CREATE TABLE clock (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    pos BIGINT NOT NULL
);

INSERT INTO clock (id, pos) VALUES (1, 0);

-- Number ranges handed out in blocks, and other single numbers.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

-- Work that one process at a time may do. A row past its expiry is anybody's.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    expires_ts BIGINT NOT NULL
);

CREATE INDEX leases_by_owner ON leases (owner);

-- Queued work. Done jobs are deleted; jobs that failed for good stay, with failed_ts.
CREATE TABLE jobs (
    job_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    dedup_key TEXT,
    run_at BIGINT NOT NULL,
    attempts INTEGER NOT NULL,
    owner TEXT,
    claimed_until BIGINT NOT NULL,
    last_error TEXT,
    failed_ts BIGINT,
    created_ts BIGINT NOT NULL
);

CREATE INDEX jobs_due ON jobs (run_at) WHERE failed_ts IS NULL;

CREATE UNIQUE INDEX jobs_dedup ON jobs (kind, dedup_key) WHERE dedup_key IS NOT NULL;

-- The running processes of this server.
CREATE TABLE processes (
    process_id TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    started_ts BIGINT NOT NULL,
    last_seen_ts BIGINT NOT NULL
);

-- Cache entries that changed, for every process to drop.
CREATE TABLE invalidations (
    pos BIGINT NOT NULL,
    cache TEXT NOT NULL,
    cache_key TEXT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (pos, cache, cache_key)
);

CREATE INDEX invalidations_by_age ON invalidations (added_ts);
