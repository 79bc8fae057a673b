"""What this server asks of other homeservers."""
