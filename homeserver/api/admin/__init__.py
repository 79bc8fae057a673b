"""Endpoints for administrators of the server, as Synapse has them."""
