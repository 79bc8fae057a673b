"""Sync: positions in, response out."""
