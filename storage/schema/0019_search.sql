-- What is found by words: messages, and users. Owners: storage/log_readers.py,
-- storage/message_words.py, storage/user_words.py.

-- readers of the log that write down something about what they read
CREATE TABLE log_readers (
    name TEXT NOT NULL PRIMARY KEY,
    -- position up to which the log has been read
    pos BIGINT NOT NULL
);
INSERT INTO log_readers (name, pos) VALUES ('messages', 0), ('users', 0);

-- the words of messages, room names and topics; rowid is the event's number
-- only: sqlite
CREATE VIRTUAL TABLE message_words USING fts5(
    room_nid UNINDEXED, ts UNINDEXED, scope, words, tokenize = 'ascii'
);

-- only: postgres
CREATE TABLE message_words (
    event_nid BIGINT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    words TSVECTOR NOT NULL
);

-- only: postgres
CREATE INDEX message_words_found ON message_words USING gin (words);

-- words of the names and IDs of users who are, or were, in rooms
CREATE TABLE user_words (
    word TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (word, user_id)
);
CREATE INDEX user_words_user ON user_words (user_id);
CREATE INDEX memberships_pos ON memberships (pos);

-- rooms that everybody may join or read: their members may be found by everybody
CREATE TABLE open_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY
);

-- what users reported to the administrators
CREATE TABLE reports (
    report_id BIGINT NOT NULL PRIMARY KEY,
    received_ts BIGINT NOT NULL,
    reporter TEXT NOT NULL,
    -- "event", "room" or "user"
    kind TEXT NOT NULL,
    room_id TEXT,
    event_id TEXT,
    -- the reported user, or the sender of the event
    user_id TEXT,
    reason TEXT NOT NULL
);

-- the room in which the server tells a user something
CREATE TABLE notice_rooms (
    user_id TEXT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE
);

CREATE INDEX events_thread_activity ON events (room_nid, relates_to, depth, pos)
    WHERE rel_type = 'm.thread';
