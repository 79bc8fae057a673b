-- A client's transaction makes one event. What simultaneous requests may have made beside the
-- first one stays, but is no longer found by the transaction.
UPDATE events SET txn_device = NULL, txn_scope = NULL, txn_id = NULL
WHERE event_nid IN (
    SELECT event_nid FROM (
        SELECT event_nid, row_number() OVER (
            PARTITION BY room_nid, sender, txn_device, txn_id, txn_scope ORDER BY event_nid
        ) AS number
        FROM events WHERE txn_id IS NOT NULL
    ) AS numbered
    WHERE number > 1
);
DROP INDEX events_txn;
CREATE UNIQUE INDEX events_txn ON events (room_nid, sender, txn_device, txn_id, txn_scope)
    WHERE txn_id IS NOT NULL;
