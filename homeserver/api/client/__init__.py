"""The client-server API, a module for each section of the specification."""
