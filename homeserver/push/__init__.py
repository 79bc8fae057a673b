"""What tells people who are not looking: a reader of the log, and what delivers its findings."""
