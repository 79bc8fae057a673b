-- The index is for finding the rooms that have a state event of some type, whose key is empty. The
-- members of all rooms, which are most of the current state, need not be in it.

DROP INDEX current_state_type;
CREATE INDEX current_state_type ON current_state (type, room_nid) WHERE state_key = '';

-- Answers to transactions are short-lived, and mostly IDs of events: PostgreSQL's attempts to make
-- them shorter are not worth their time.

-- only: postgres
ALTER TABLE received_transactions SET (toast_tuple_target = 8160);

-- New words are gathered and then sorted into the index by whoever comes when there are many, perhaps
-- while the clock is locked: by less at a time, which is hardly more work in all.

-- only: postgres
ALTER INDEX message_words_found SET (gin_pending_list_limit = 1024);
