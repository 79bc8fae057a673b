"""Simplified sliding sync (MSC4186): a window on the user's rooms instead of all of them."""
