"""Federation with other homeservers."""
