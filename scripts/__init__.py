"""Scripts for developers and operators; the ones without a suffix are commands."""
