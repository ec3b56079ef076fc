"""Several threads that judge together."""
