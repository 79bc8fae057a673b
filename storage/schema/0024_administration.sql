-- What administrators decide about accounts. Owners: storage/users.py, storage/tokens.py,
-- storage/rate_overrides.py, storage/mass_redactions.py, storage/reports.py.

-- what they send gets an answer as ever, and reaches nobody
ALTER TABLE users ADD COLUMN shadow_banned BOOLEAN NOT NULL DEFAULT FALSE;
-- milliseconds since 1970: until then cross-signing keys are replaced without confirmation
ALTER TABLE users ADD COLUMN keys_replaceable_until BIGINT;

CREATE INDEX users_created ON users (created_ts);

-- the administrator who uses another's account with it; such a token is of no device ('')
ALTER TABLE access_tokens ADD COLUMN puppeteer TEXT;

CREATE INDEX access_tokens_puppeteer ON access_tokens (puppeteer) WHERE puppeteer IS NOT NULL;

CREATE TABLE rate_overrides (
    user_id TEXT NOT NULL PRIMARY KEY,
    -- 0: without limit
    per_second BIGINT NOT NULL,
    burst BIGINT NOT NULL
);

-- how bad it is to the reporter, 0 to -100
ALTER TABLE reports ADD COLUMN score BIGINT;

CREATE INDEX reports_kind ON reports (kind, report_id);

-- redactions of all that a user sent
CREATE TABLE mass_redactions (
    redact_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    -- the administrator
    asked_by TEXT NOT NULL,
    -- JSON object: what was asked for
    request TEXT NOT NULL,
    -- JSON object: the rooms that are left, and how far the first of them is
    progress TEXT NOT NULL,
    -- "scheduled", "active", "complete", "failed"
    status TEXT NOT NULL,
    changed_ts BIGINT NOT NULL,
    -- JSON object: IDs of events that could not be redacted, and why
    failures TEXT NOT NULL,
    error TEXT
);
CREATE INDEX mass_redactions_age ON mass_redactions (changed_ts);

CREATE INDEX membership_log_invites ON membership_log (sender, pos) WHERE membership = 'invite';
