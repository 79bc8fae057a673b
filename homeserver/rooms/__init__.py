"""Services around rooms: the append path, creation, membership and reading."""
