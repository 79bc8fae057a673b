"""What this server tells the others: a reader of the log that sends transactions."""
