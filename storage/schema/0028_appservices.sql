-- What application services are told. Owner: storage/appservice_streams.py.

CREATE TABLE appservice_streams (
    appservice_id TEXT NOT NULL PRIMARY KEY,
    -- the position up to which the service has been told
    pos BIGINT NOT NULL,
    -- number of the last transaction
    txn_number BIGINT NOT NULL,
    -- the position up to which the transaction under way goes; NULL: there is none
    upto BIGINT,
    -- JSON: the transaction under way, which is repeated as it is until it is taken
    body TEXT
);
