"""The rules of Matrix as pure functions: no I/O, no clock, no randomness."""
