"""One file a sync stream."""
