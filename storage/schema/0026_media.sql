-- Files that people send. The bytes are kept once for each content, by the store that `name` is
-- known to; a row for each name (mxc URI) that they go by.

CREATE TABLE media_contents (
    sha256 TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    size BIGINT NOT NULL,
    refs BIGINT NOT NULL,  -- rows of media and media_thumbnails with this hash
    is_clean BOOLEAN NOT NULL,  -- the scanner has seen it and found nothing
    created_ts BIGINT NOT NULL
);

CREATE TABLE media (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    kind TEXT NOT NULL,  -- local, remote or preview
    sha256 TEXT,  -- NULL: reserved, not yet uploaded
    size BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    filename TEXT,
    uploader TEXT,
    created_ts BIGINT NOT NULL,
    last_access_ts BIGINT NOT NULL,
    expires_ts BIGINT,  -- of what is reserved
    authenticated BOOLEAN NOT NULL,  -- not to be had without an access token
    quarantined_by TEXT,
    protected BOOLEAN NOT NULL,  -- from quarantine by user or room
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX media_by_hash ON media (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX media_by_uploader ON media (uploader, created_ts) WHERE uploader IS NOT NULL;
CREATE INDEX media_by_access ON media (kind, last_access_ts);
CREATE INDEX media_reserved ON media (expires_ts) WHERE sha256 IS NULL;

CREATE TABLE media_thumbnails (
    source TEXT NOT NULL,  -- the hash of the picture, or server/ID where only this was fetched
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    method TEXT NOT NULL,
    animated BOOLEAN NOT NULL,
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    last_access_ts BIGINT NOT NULL,
    PRIMARY KEY (source, width, height, method, animated)
);
CREATE INDEX media_thumbnails_by_hash ON media_thumbnails (sha256);
CREATE INDEX media_thumbnails_by_access ON media_thumbnails (last_access_ts);

-- Contents that nobody gets, whatever their names, also when they come again.
CREATE TABLE media_blocked (
    sha256 TEXT NOT NULL PRIMARY KEY,
    blocked_by TEXT NOT NULL,
    blocked_ts BIGINT NOT NULL
);

-- What other servers did not give, and until when they are not asked again.
CREATE TABLE media_failures (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    status SMALLINT NOT NULL,
    errcode TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    until_ts BIGINT NOT NULL,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX media_failures_by_time ON media_failures (until_ts);

-- Which events name a file. A redacted event keeps its rows, with the time it was noticed.
CREATE TABLE media_references (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,
    sender TEXT NOT NULL,
    redacted_ts BIGINT,
    PRIMARY KEY (server_name, media_id, event_nid)
);
CREATE INDEX media_references_by_event ON media_references (event_nid);
CREATE INDEX media_references_by_room ON media_references (room_nid);
CREATE INDEX media_references_redacted ON media_references (redacted_ts)
    WHERE redacted_ts IS NOT NULL;

INSERT INTO log_readers (name, pos) VALUES ('media', 0);

CREATE TABLE url_previews (
    url_hash TEXT NOT NULL,
    fetched_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL,
    url TEXT NOT NULL,
    preview TEXT NOT NULL,
    media_id TEXT,
    PRIMARY KEY (url_hash, fetched_ts)
);
CREATE INDEX url_previews_by_time ON url_previews (fetched_ts);
CREATE INDEX url_previews_by_media ON url_previews (media_id) WHERE media_id IS NOT NULL;
