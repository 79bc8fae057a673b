-- What other servers send. Owner: storage/received.py.

-- transactions, so that a repeated one gets the same answer
CREATE TABLE received_transactions (
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    -- the process that works, or worked, on it
    owner TEXT NOT NULL,
    -- JSON as answered; NULL while it is worked on
    answer TEXT,
    received_ts BIGINT NOT NULL,
    PRIMARY KEY (origin, txn_id)
);
CREATE INDEX received_transactions_age ON received_transactions (received_ts);

-- events whose signatures are checked and that wait to be added to their rooms
CREATE TABLE staged_pdus (
    room_nid BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    -- the server that sent the transaction
    origin TEXT NOT NULL,
    depth BIGINT NOT NULL,
    json TEXT NOT NULL,
    -- bytes of json
    size BIGINT NOT NULL,
    received_ts BIGINT NOT NULL,
    -- tries that failed
    attempts INTEGER NOT NULL,
    next_try_ts BIGINT NOT NULL,
    PRIMARY KEY (room_nid, event_id)
);
CREATE INDEX staged_pdus_origin ON staged_pdus (origin, size);
CREATE INDEX staged_pdus_queue ON staged_pdus (room_nid, origin, attempts, size);
CREATE INDEX staged_pdus_due ON staged_pdus (next_try_ts, room_nid, origin);
