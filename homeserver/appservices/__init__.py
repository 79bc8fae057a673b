"""What application services are told and asked (Application Service API)."""
