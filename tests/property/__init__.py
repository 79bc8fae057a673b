"""Properties that hold for generated rooms."""
