"""What goes out to servers that are not homeservers: mail servers, verifiers, and the like."""
