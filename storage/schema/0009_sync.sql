-- Answers that could not give a device all its waiting messages: up to where they reach, by the
-- position of their token. Owner: storage/to_device_tokens.py.

CREATE TABLE to_device_tokens (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    token_pos BIGINT NOT NULL,
    reached BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, token_pos)
);
