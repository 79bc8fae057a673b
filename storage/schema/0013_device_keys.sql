-- Keys of end-to-end encryption. Owners: storage/device_keys.py, one_time_keys.py,
-- cross_signing.py, remote_devices.py, device_lists.py.

-- identity keys of this server's devices
CREATE TABLE device_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- canonical JSON as uploaded, without other users' signatures and `unsigned`
    keys TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- one-time keys, and those claimed lately, so that uploading them again does not bring them back
CREATE TABLE one_time_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    -- number of the upload within the device, in upload order
    seq BIGINT NOT NULL,
    -- JSON
    key TEXT NOT NULL,
    claimed BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
);
CREATE INDEX one_time_keys_next ON one_time_keys (user_id, device_id, algorithm, seq)
    WHERE NOT claimed;

CREATE TABLE fallback_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    -- JSON
    key TEXT NOT NULL,
    used BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
);

-- a device's one-time keys as its syncs tell; whoever changes them locks this row first
CREATE TABLE one_time_key_counts (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    next_seq BIGINT NOT NULL,
    -- JSON: unclaimed keys by algorithm
    counts TEXT NOT NULL,
    -- JSON list of the algorithms whose fallback key was not given out
    unused_fallback TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- cross-signing keys of this server's users
CREATE TABLE cross_signing_keys (
    user_id TEXT NOT NULL,
    -- "master", "self_signing", "user_signing"
    usage TEXT NOT NULL,
    public_key TEXT NOT NULL,
    -- canonical JSON as uploaded, without other users' signatures and `unsigned`
    keys TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
);

-- signatures of this server's users that were uploaded on their own
CREATE TABLE key_signatures (
    -- whose key is signed: a device by its ID, a master key by its public key
    user_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    signer TEXT NOT NULL,
    -- with the algorithm
    signing_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (user_id, key_name, signer, signing_key)
);
CREATE INDEX key_signatures_signer ON key_signatures (signer, signing_key);

-- the only user who is told of the change: they signed somebody's key; NULL: all who share a room
ALTER TABLE device_list_changes ADD COLUMN only_for TEXT;

-- device lists of other servers' users, kept up to date by what their servers tell
CREATE TABLE remote_device_lists (
    user_id TEXT NOT NULL PRIMARY KEY,
    -- the last change that the list has; NULL: not known, the next change fetches the list
    stream_id BIGINT,
    -- counts the changes heard of: a list that was asked for before one of them may lack it
    heard BIGINT NOT NULL,
    -- changes were missed: the list must be fetched
    stale BOOLEAN NOT NULL,
    -- position of the clock before the list was asked for; 0: never yet, -1: nor wanted by anybody
    fetched_pos BIGINT NOT NULL,
    -- JSON
    master_key TEXT,
    self_signing_key TEXT
);
CREATE INDEX remote_device_lists_stale ON remote_device_lists (user_id) WHERE stale;

CREATE TABLE remote_devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    -- JSON
    keys TEXT,
    PRIMARY KEY (user_id, device_id)
);
