"""Doors: the HTTP APIs."""
