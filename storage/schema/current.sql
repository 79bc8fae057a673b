-- Made by `python -m storage.migrate dump`: what the migrations lead to.

CREATE TABLE accepted_terms (
    user_id TEXT NOT NULL,
    document TEXT NOT NULL,
    version TEXT NOT NULL,
    accepted_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, document)
);

CREATE TABLE access_tokens (
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT,
    refresh_hash BLOB,
    used BOOLEAN NOT NULL
, puppeteer TEXT);

CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    content TEXT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);

CREATE TABLE aliases (
    alias TEXT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    creator TEXT NOT NULL
);

CREATE TABLE appservice_streams (
    appservice_id TEXT NOT NULL PRIMARY KEY,
    pos BIGINT NOT NULL,
    txn_number BIGINT NOT NULL,
    upto BIGINT,
    body TEXT
);

CREATE TABLE auth_packs (
    room_nid BIGINT NOT NULL,
    first_nid BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (room_nid, first_nid)
);

CREATE TABLE backed_up_keys (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    session_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count BIGINT NOT NULL,
    is_verified BOOLEAN NOT NULL,
    session_data TEXT NOT NULL,
    PRIMARY KEY (user_id, version, session_id, room_id)
);

CREATE TABLE blocked_rooms (
    room_id TEXT NOT NULL PRIMARY KEY,
    blocked_by TEXT NOT NULL,
    blocked_ts BIGINT NOT NULL
);

CREATE TABLE bound_threepids (
    user_id TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    id_server TEXT NOT NULL,
    PRIMARY KEY (user_id, medium, address, id_server)
);

CREATE TABLE clock (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    pos BIGINT NOT NULL
);

CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE cross_signing_keys (
    user_id TEXT NOT NULL,
    usage TEXT NOT NULL,
    public_key TEXT NOT NULL,
    keys TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
);

CREATE TABLE current_state (
    room_nid BIGINT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (room_nid, type, state_key)
);

CREATE TABLE dehydrated_devices (
    user_id TEXT NOT NULL PRIMARY KEY,
    device_id TEXT NOT NULL,
    device_data TEXT NOT NULL
);

CREATE TABLE delayed_events (
    delay_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    state_key TEXT,
    content TEXT NOT NULL,
    delay BIGINT NOT NULL,
    running_since BIGINT NOT NULL,
    send_ts BIGINT NOT NULL,
    claimed_until BIGINT NOT NULL,
    finalised_ts BIGINT,
    event_id TEXT,
    error TEXT
, sticky_ms BIGINT);

CREATE TABLE destination_events (
    server_name TEXT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (server_name, pos)
);

CREATE TABLE destination_shards (
    shard INTEGER NOT NULL PRIMARY KEY,
    pos BIGINT NOT NULL
);

CREATE TABLE destinations (
    server_name TEXT NOT NULL PRIMARY KEY,
    shard INTEGER NOT NULL,
    pos BIGINT NOT NULL,
    failing_since BIGINT,
    retry_at BIGINT NOT NULL,
    retry_interval BIGINT NOT NULL
);

CREATE TABLE device_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

CREATE TABLE device_list_changes (
    pos BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL
, only_for TEXT);

CREATE TABLE device_updates (
    pos BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    updated_ts BIGINT NOT NULL
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

CREATE TABLE erased_users (
    user_id TEXT NOT NULL PRIMARY KEY,
    pos BIGINT NOT NULL
);

CREATE TABLE event_gaps (
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    successor TEXT NOT NULL,
    depth BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_id, successor)
);

CREATE TABLE events (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_nid BIGINT NOT NULL,
    pos BIGINT,
    depth BIGINT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT,
    sender TEXT NOT NULL,
    origin_server_ts BIGINT NOT NULL,
    json TEXT NOT NULL,
    status SMALLINT NOT NULL,
    state_before BLOB,
    state_after BLOB,
    replaces_state TEXT,
    redacted_by TEXT,
    relates_to TEXT,
    rel_type TEXT,
    thread_root TEXT,
    contains_url BOOLEAN NOT NULL,
    notify SMALLINT NOT NULL,
    notify_total BIGINT NOT NULL,
    highlight_total BIGINT NOT NULL,
    txn_device TEXT,
    txn_scope TEXT,
    txn_id TEXT
, outgoing BOOLEAN NOT NULL DEFAULT FALSE);

CREATE TABLE external_ids (
    provider TEXT NOT NULL,
    external_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (provider, external_id)
);

CREATE TABLE fallback_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    key TEXT NOT NULL,
    used BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
);

CREATE TABLE filters (
    user_id TEXT NOT NULL,
    filter_id BIGINT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);

CREATE TABLE gone_rooms (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    event_id TEXT,
    event TEXT,
    version TEXT NOT NULL,
    PRIMARY KEY (user_id, room_id)
);

CREATE TABLE invalidations (
    pos BIGINT NOT NULL,
    cache TEXT NOT NULL,
    cache_key TEXT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (pos, cache, cache_key)
);

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

CREATE TABLE key_backup_numbers (
    user_id TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

CREATE TABLE key_backups (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL,
    etag BIGINT NOT NULL,
    keys BIGINT NOT NULL,
    PRIMARY KEY (user_id, version)
);

CREATE TABLE key_signatures (
    user_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    signer TEXT NOT NULL,
    signing_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (user_id, key_name, signer, signing_key)
);

CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    expires_ts BIGINT NOT NULL
);

CREATE TABLE log_readers (
    name TEXT NOT NULL PRIMARY KEY,
    pos BIGINT NOT NULL
);

CREATE TABLE mass_redactions (
    redact_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    request TEXT NOT NULL,
    progress TEXT NOT NULL,
    status TEXT NOT NULL,
    changed_ts BIGINT NOT NULL,
    failures TEXT NOT NULL,
    error TEXT
);

CREATE TABLE media (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    kind TEXT NOT NULL, 
    sha256 TEXT, 
    size BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    filename TEXT,
    uploader TEXT,
    created_ts BIGINT NOT NULL,
    last_access_ts BIGINT NOT NULL,
    expires_ts BIGINT, 
    authenticated BOOLEAN NOT NULL, 
    quarantined_by TEXT,
    protected BOOLEAN NOT NULL, 
    PRIMARY KEY (server_name, media_id)
);

CREATE TABLE media_blocked (
    sha256 TEXT NOT NULL PRIMARY KEY,
    blocked_by TEXT NOT NULL,
    blocked_ts BIGINT NOT NULL
);

CREATE TABLE media_contents (
    sha256 TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    size BIGINT NOT NULL,
    refs BIGINT NOT NULL, 
    is_clean BOOLEAN NOT NULL, 
    created_ts BIGINT NOT NULL
);

CREATE TABLE media_failures (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    status SMALLINT NOT NULL,
    errcode TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    until_ts BIGINT NOT NULL,
    PRIMARY KEY (server_name, media_id)
);

CREATE TABLE media_references (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,
    sender TEXT NOT NULL,
    redacted_ts BIGINT,
    PRIMARY KEY (server_name, media_id, event_nid)
);

CREATE TABLE media_thumbnails (
    source TEXT NOT NULL, 
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

CREATE TABLE membership_log (
    pos BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    previous TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    sender TEXT NOT NULL
);

CREATE TABLE memberships (
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    sender TEXT NOT NULL,
    pos BIGINT NOT NULL,
    is_local BOOLEAN NOT NULL,
    forgotten BOOLEAN NOT NULL,
    displayname TEXT,
    avatar_url TEXT,
    stripped_state TEXT,
    PRIMARY KEY (room_nid, user_id)
);

-- only: sqlite
CREATE VIRTUAL TABLE message_words USING fts5(
    room_nid UNINDEXED, ts UNINDEXED, scope, words, tokenize = 'ascii'
);

CREATE TABLE notice_rooms (
    user_id TEXT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE
);

CREATE TABLE notify_marks (
    user_id TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    thread_root TEXT,
    notify SMALLINT NOT NULL,
    highlight SMALLINT NOT NULL,
    PRIMARY KEY (user_id, room_nid, pos)
);

CREATE TABLE one_time_key_counts (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    next_seq BIGINT NOT NULL,
    counts TEXT NOT NULL,
    unused_fallback TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

CREATE TABLE one_time_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    key TEXT NOT NULL,
    claimed BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
);

CREATE TABLE one_time_tokens (
    purpose TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    user_id TEXT,
    expires_ts BIGINT NOT NULL,
    PRIMARY KEY (purpose, token_hash)
);

CREATE TABLE open_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY
);

CREATE TABLE outgoing_to_device (
    destination TEXT NOT NULL,
    pos BIGINT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (destination, pos)
);

CREATE TABLE partial_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY,
    join_event_id TEXT NOT NULL,
    started_ts BIGINT NOT NULL
);

CREATE TABLE pending_redactions (
    redacts TEXT NOT NULL,
    redaction_id TEXT NOT NULL,
    PRIMARY KEY (redacts, redaction_id)
);

CREATE TABLE processes (
    process_id TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    started_ts BIGINT NOT NULL,
    last_seen_ts BIGINT NOT NULL
);

CREATE TABLE profile_changes (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, field)
);

CREATE TABLE profiles (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (user_id, field)
);

CREATE TABLE published_networks (
    instance_id TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    PRIMARY KEY (instance_id, room_nid)
);

CREATE TABLE published_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY
);

CREATE TABLE push_gateways (
    gateway TEXT NOT NULL PRIMARY KEY,
    attempts INTEGER NOT NULL,
    failing_since BIGINT NOT NULL,
    retry_ts BIGINT NOT NULL
);

CREATE TABLE push_log (
    user_id TEXT NOT NULL,
    pusher_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    kind TEXT NOT NULL,
    room_nid BIGINT,
    event_id TEXT,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_ts BIGINT NOT NULL,
    last_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, pusher_nid, pos)
);

CREATE TABLE push_queue (
    pusher_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    room_nid BIGINT NOT NULL,
    event_nid BIGINT NOT NULL,
    tweaks TEXT NOT NULL,
    queued_ts BIGINT NOT NULL,
    PRIMARY KEY (pusher_nid, pos)
);

CREATE TABLE push_rules (
    user_id TEXT NOT NULL PRIMARY KEY,
    rules TEXT NOT NULL,
    exceptional BOOLEAN NOT NULL,
    pos BIGINT NOT NULL
);

CREATE TABLE push_work (
    pusher_nid BIGINT NOT NULL PRIMARY KEY,
    gateway TEXT NOT NULL,
    serial BIGINT NOT NULL,
    due_ts BIGINT NOT NULL,
    badge BOOLEAN NOT NULL,
    attempts INTEGER NOT NULL,
    owner TEXT,
    claimed_until BIGINT NOT NULL
);

CREATE TABLE pushers (
    pusher_nid BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    kind TEXT NOT NULL,
    app_display_name TEXT NOT NULL,
    device_display_name TEXT NOT NULL,
    profile_tag TEXT,
    lang TEXT NOT NULL,
    data TEXT NOT NULL,
    device_id TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    activated BOOLEAN NOT NULL,
    ack_token TEXT,
    ack_expires_ts BIGINT,
    secret TEXT NOT NULL,
    gateway TEXT NOT NULL,
    set_ts BIGINT NOT NULL,
    since BIGINT NOT NULL,
    badge BIGINT,
    mailed_ts BIGINT,
    mail_pause BIGINT,
    UNIQUE (user_id, app_id, pushkey)
);

CREATE TABLE rate_overrides (
    user_id TEXT NOT NULL PRIMARY KEY,
    per_second BIGINT NOT NULL,
    burst BIGINT NOT NULL
);

CREATE TABLE receipts (
    room_nid BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    type TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_pos BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (room_nid, user_id, type, thread_id)
);

CREATE TABLE received_transactions (
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    answer TEXT,
    received_ts BIGINT NOT NULL,
    PRIMARY KEY (origin, txn_id)
);

CREATE TABLE redacted_contents (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    sender TEXT NOT NULL,
    json TEXT NOT NULL,
    redacted_ts BIGINT NOT NULL
);

CREATE TABLE refresh_tokens (
    token_hash BLOB NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT,
    next_hash BLOB
);

CREATE TABLE registration_tokens (
    token TEXT NOT NULL PRIMARY KEY,
    uses_allowed BIGINT,
    completed BIGINT NOT NULL,
    expires_ts BIGINT
);

CREATE TABLE remote_device_lists (
    user_id TEXT NOT NULL PRIMARY KEY,
    stream_id BIGINT,
    heard BIGINT NOT NULL,
    stale BOOLEAN NOT NULL,
    fetched_pos BIGINT NOT NULL,
    master_key TEXT,
    self_signing_key TEXT
);

CREATE TABLE remote_devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    keys TEXT,
    PRIMARY KEY (user_id, device_id)
);

CREATE TABLE reports (
    report_id BIGINT NOT NULL PRIMARY KEY,
    received_ts BIGINT NOT NULL,
    reporter TEXT NOT NULL,
    kind TEXT NOT NULL,
    room_id TEXT,
    event_id TEXT,
    user_id TEXT,
    reason TEXT NOT NULL
, score BIGINT);

CREATE TABLE room_servers (
    room_nid BIGINT NOT NULL,
    server_name TEXT NOT NULL,
    joined BIGINT NOT NULL,
    PRIMARY KEY (room_nid, server_name)
);

CREATE TABLE room_states (
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (room_nid, pos)
);

CREATE TABLE room_tasks (
    task_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    room_id TEXT NOT NULL,
    status TEXT NOT NULL,
    wanted TEXT NOT NULL,
    progress TEXT NOT NULL,
    error TEXT,
    is_closing BOOLEAN NOT NULL,
    created_ts BIGINT NOT NULL,
    finished_ts BIGINT
);

CREATE TABLE rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    head_version BIGINT NOT NULL,
    depth BIGINT NOT NULL,
    extremities TEXT NOT NULL,
    state_root BLOB,
    state_version BIGINT NOT NULL,
    notify_total BIGINT NOT NULL,
    highlight_total BIGINT NOT NULL,
    last_pos BIGINT NOT NULL,
    created_ts BIGINT NOT NULL
, remote_servers BIGINT NOT NULL DEFAULT 0, content_version BIGINT NOT NULL DEFAULT 0);

CREATE TABLE server_key_answers (
    server_name TEXT NOT NULL,
    answer_hash BLOB NOT NULL,
    valid_until_ts BIGINT NOT NULL,
    fetched_ts BIGINT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (server_name, answer_hash)
);

CREATE TABLE server_keys (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    verify_key TEXT NOT NULL,
    valid_until_ts BIGINT NOT NULL,
    is_old BOOLEAN NOT NULL,
    answer_hash BLOB NOT NULL,
    PRIMARY KEY (server_name, key_id)
);

CREATE TABLE sliding_positions (
    position BIGINT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    conn_id TEXT NOT NULL,
    parent BIGINT NOT NULL,
    state TEXT NOT NULL,
    used_ts BIGINT NOT NULL
);

CREATE TABLE sso_sessions (
    session_hash BLOB NOT NULL PRIMARY KEY,
    browser_hash BLOB NOT NULL,
    stage TEXT NOT NULL,
    provider TEXT NOT NULL,
    details TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL
);

CREATE TABLE staged_pdus (
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    origin TEXT NOT NULL,
    depth BIGINT NOT NULL,
    json TEXT NOT NULL,
    size BIGINT NOT NULL,
    received_ts BIGINT NOT NULL,
    attempts INTEGER NOT NULL,
    next_try_ts BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_id)
);

CREATE TABLE state_keys (
    state_key_nid BIGINT NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
);

CREATE TABLE state_nodes (
    room_nid BIGINT NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL, saved BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (room_nid, hash)
);

CREATE TABLE sticky_events (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    sender TEXT NOT NULL,
    pos BIGINT,
    expires_ts BIGINT NOT NULL
);

CREATE TABLE thread_subscriptions (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    pos BIGINT NOT NULL,
    subscribed BOOLEAN NOT NULL,
    automatic BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, room_id, thread_id)
);

CREATE TABLE threepid_validation_tokens (
    sid TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    PRIMARY KEY (sid, token_hash)
);

CREATE TABLE threepid_validations (
    sid TEXT NOT NULL PRIMARY KEY,
    purpose TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    client_secret TEXT NOT NULL,
    send_attempt BIGINT NOT NULL,
    next_link TEXT,
    failures BIGINT NOT NULL,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL,
    validated_ts BIGINT
);

CREATE TABLE threepids (
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    user_id TEXT NOT NULL,
    validated_ts BIGINT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (medium, address)
);

CREATE TABLE timeline_breaks (
    room_nid BIGINT NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (room_nid, pos)
);

CREATE TABLE to_device_messages (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    pos BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
);

CREATE TABLE to_device_transactions (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    sent_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, event_type, txn_id)
);

CREATE TABLE uia_sessions (
    session_id TEXT NOT NULL PRIMARY KEY,
    operation TEXT NOT NULL,
    body_hash BLOB,
    completed TEXT NOT NULL,
    outcome TEXT,
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL
, details TEXT);

CREATE TABLE url_previews (
    url_hash TEXT NOT NULL,
    fetched_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL,
    url TEXT NOT NULL,
    preview TEXT NOT NULL,
    media_id TEXT,
    PRIMARY KEY (url_hash, fetched_ts)
);

CREATE TABLE user_words (
    word TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (word, user_id)
);

CREATE TABLE users (
    user_id TEXT NOT NULL PRIMARY KEY,
    password_hash TEXT,
    user_type TEXT,
    is_guest BOOLEAN NOT NULL,
    is_admin BOOLEAN NOT NULL,
    locked BOOLEAN NOT NULL,
    suspended BOOLEAN NOT NULL,
    erased BOOLEAN NOT NULL,
    deactivated_ts BIGINT,
    created_ts BIGINT NOT NULL
, shadow_banned BOOLEAN NOT NULL DEFAULT FALSE, keys_replaceable_until BIGINT);

CREATE TABLE vapid_keys (
    id SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    private_key TEXT NOT NULL
);

CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);

CREATE INDEX access_tokens_puppeteer ON access_tokens (puppeteer) WHERE puppeteer IS NOT NULL;

CREATE INDEX access_tokens_refresh ON access_tokens (refresh_hash);

CREATE INDEX account_data_news ON account_data (pos);

CREATE INDEX account_data_pos ON account_data (user_id, pos);

CREATE INDEX aliases_room ON aliases (room_nid);

CREATE INDEX backed_up_keys_room ON backed_up_keys (user_id, version, room_id);

CREATE INDEX current_state_type ON current_state (type, room_nid) WHERE state_key = '';

CREATE INDEX delayed_events_due ON delayed_events (send_ts) WHERE finalised_ts IS NULL;

CREATE INDEX delayed_events_over ON delayed_events (finalised_ts) WHERE finalised_ts IS NOT NULL;

CREATE UNIQUE INDEX delayed_events_txn
    ON delayed_events (user_id, device_id, scope, txn_id) WHERE txn_id <> '';

CREATE INDEX delayed_events_user ON delayed_events (user_id, running_since);

CREATE INDEX destinations_shard ON destinations (shard);

CREATE INDEX device_list_changes_user ON device_list_changes (user_id, pos);

CREATE INDEX device_updates_age ON device_updates (updated_ts);

CREATE INDEX device_updates_user ON device_updates (user_id, pos);

CREATE INDEX event_gaps_depth ON event_gaps (room_nid, depth);

CREATE INDEX events_bump ON events (room_nid, pos) WHERE type IN ('m.room.message',
    'm.room.encrypted', 'm.room.create', 'm.sticker', 'm.call.invite', 'm.poll.start',
    'org.matrix.msc3381.poll.start', 'm.beacon_info', 'org.matrix.msc3672.beacon_info');

CREATE INDEX events_calls ON events (room_nid, pos) WHERE type IN ('m.call.invite',
    'm.call.answer', 'm.call.reject', 'm.call.hangup', 'm.call.select_answer');

CREATE INDEX events_depth ON events (room_nid, depth, pos) WHERE pos IS NOT NULL;

CREATE INDEX events_loud ON events (room_nid, pos) WHERE notify > 1;

CREATE INDEX events_outgoing ON events (pos) WHERE outgoing;

CREATE INDEX events_outgoing_room ON events (room_nid, pos) WHERE outgoing;

CREATE INDEX events_own ON events (room_nid, sender, pos) WHERE notify > 0;

CREATE INDEX events_pos ON events (pos) WHERE pos IS NOT NULL;

CREATE INDEX events_redacted ON events (room_nid, pos) WHERE redacted_by IS NOT NULL;

CREATE INDEX events_relations ON events (relates_to, pos) WHERE relates_to IS NOT NULL;

CREATE INDEX events_thread_activity ON events (room_nid, relates_to, depth, pos)
    WHERE rel_type = 'm.thread';

CREATE INDEX events_threads ON events (room_nid, pos) WHERE thread_root IS NOT NULL;

CREATE INDEX events_time ON events (room_nid, origin_server_ts) WHERE pos IS NOT NULL;

CREATE UNIQUE INDEX events_timeline ON events (room_nid, pos);

CREATE UNIQUE INDEX events_txn ON events (room_nid, sender, txn_device, txn_id, txn_scope)
    WHERE txn_id IS NOT NULL;

CREATE INDEX external_ids_user ON external_ids (user_id);

CREATE INDEX filters_json ON filters (user_id, json);

CREATE INDEX gone_rooms_news ON gone_rooms (pos);

CREATE INDEX gone_rooms_pos ON gone_rooms (user_id, pos);

CREATE INDEX invalidations_by_age ON invalidations (added_ts);

CREATE UNIQUE INDEX jobs_dedup ON jobs (kind, dedup_key) WHERE dedup_key IS NOT NULL;

CREATE INDEX jobs_due ON jobs (run_at) WHERE failed_ts IS NULL;

CREATE INDEX key_signatures_signer ON key_signatures (signer, signing_key);

CREATE INDEX leases_by_owner ON leases (owner);

CREATE INDEX mass_redactions_age ON mass_redactions (changed_ts);

CREATE INDEX media_by_access ON media (kind, last_access_ts);

CREATE INDEX media_by_hash ON media (sha256) WHERE sha256 IS NOT NULL;

CREATE INDEX media_by_uploader ON media (uploader, created_ts) WHERE uploader IS NOT NULL;

CREATE INDEX media_reserved ON media (expires_ts) WHERE sha256 IS NULL;

CREATE INDEX media_failures_by_time ON media_failures (until_ts);

CREATE INDEX media_references_by_event ON media_references (event_nid);

CREATE INDEX media_references_by_room ON media_references (room_nid);

CREATE INDEX media_references_redacted ON media_references (redacted_ts)
    WHERE redacted_ts IS NOT NULL;

CREATE INDEX media_thumbnails_by_access ON media_thumbnails (last_access_ts);

CREATE INDEX media_thumbnails_by_hash ON media_thumbnails (sha256);

CREATE INDEX membership_log_invites ON membership_log (sender, pos) WHERE membership = 'invite';

CREATE INDEX membership_log_member ON membership_log (room_nid, user_id, pos);

CREATE INDEX membership_log_room ON membership_log (room_nid, pos);

CREATE INDEX membership_log_user ON membership_log (user_id, pos);

CREATE INDEX memberships_pos ON memberships (pos);

CREATE INDEX memberships_room ON memberships (room_nid, membership, is_local);

CREATE INDEX memberships_user ON memberships (user_id, membership);

CREATE INDEX notify_marks_pos ON notify_marks (pos);

CREATE INDEX notify_marks_room ON notify_marks (room_nid, pos);

CREATE INDEX one_time_keys_next ON one_time_keys (user_id, device_id, algorithm, seq)
    WHERE NOT claimed;

CREATE INDEX one_time_tokens_expires ON one_time_tokens (expires_ts);

CREATE INDEX one_time_tokens_user ON one_time_tokens (user_id);

CREATE INDEX outgoing_to_device_pos ON outgoing_to_device (pos);

CREATE INDEX pending_redactions_by ON pending_redactions (redaction_id);

CREATE INDEX profile_changes_pos ON profile_changes (pos);

CREATE INDEX published_networks_room ON published_networks (room_nid);

CREATE INDEX push_log_age ON push_log (last_ts);

CREATE INDEX push_rules_news ON push_rules (pos);

CREATE INDEX push_work_due ON push_work (due_ts);

CREATE INDEX pushers_key ON pushers (app_id, pushkey);

CREATE INDEX receipts_news ON receipts (pos);

CREATE INDEX receipts_pos ON receipts (room_nid, pos);

CREATE INDEX receipts_user ON receipts (user_id, pos);

CREATE INDEX received_transactions_age ON received_transactions (received_ts);

CREATE INDEX redacted_contents_age ON redacted_contents (redacted_ts);

CREATE INDEX redacted_contents_sender ON redacted_contents (sender);

CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);

CREATE INDEX refresh_tokens_next ON refresh_tokens (next_hash);

CREATE INDEX remote_device_lists_stale ON remote_device_lists (user_id) WHERE stale;

CREATE INDEX reports_kind ON reports (kind, report_id);

CREATE INDEX room_servers_server ON room_servers (server_name);

CREATE INDEX room_states_pos ON room_states (pos);

CREATE INDEX room_tasks_room ON room_tasks (room_id);

CREATE INDEX sliding_positions_age ON sliding_positions (used_ts);

CREATE INDEX sliding_positions_connection ON sliding_positions (user_id, device_id, conn_id);

CREATE INDEX sso_sessions_created ON sso_sessions (created_ts);

CREATE INDEX sso_sessions_expires ON sso_sessions (expires_ts);

CREATE INDEX staged_pdus_due ON staged_pdus (next_try_ts, room_nid, origin);

CREATE INDEX staged_pdus_origin ON staged_pdus (origin, size);

CREATE INDEX staged_pdus_queue ON staged_pdus (room_nid, origin, attempts, size);

CREATE INDEX sticky_events_expires ON sticky_events (expires_ts);

CREATE INDEX sticky_events_pos ON sticky_events (pos);

CREATE INDEX sticky_events_room ON sticky_events (room_nid, pos);

CREATE INDEX thread_subscriptions_pos ON thread_subscriptions (user_id, pos);

CREATE UNIQUE INDEX threepid_validations_asked
    ON threepid_validations (purpose, medium, address, client_secret);

CREATE INDEX threepid_validations_expires ON threepid_validations (expires_ts);

CREATE INDEX threepids_user ON threepids (user_id);

CREATE INDEX to_device_messages_news ON to_device_messages (pos);

CREATE INDEX to_device_transactions_age ON to_device_transactions (user_id, device_id, sent_ts);

CREATE INDEX uia_sessions_expires ON uia_sessions (expires_ts);

CREATE INDEX url_previews_by_media ON url_previews (media_id) WHERE media_id IS NOT NULL;

CREATE INDEX url_previews_by_time ON url_previews (fetched_ts);

CREATE INDEX user_words_user ON user_words (user_id);

CREATE INDEX users_created ON users (created_ts);

-- only: postgres
CREATE TABLE message_words (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    words TSVECTOR NOT NULL
);

-- only: postgres
CREATE INDEX message_words_found ON message_words USING gin (words);

-- only: postgres
ALTER TABLE received_transactions SET (toast_tuple_target = 8160);

-- only: postgres
ALTER INDEX message_words_found SET (gin_pending_list_limit = 1024);
