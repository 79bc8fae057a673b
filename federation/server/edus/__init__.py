"""What other servers tell besides events: EDUs, by their type."""
