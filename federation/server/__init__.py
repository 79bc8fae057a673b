"""What other servers and third parties ask this server."""
