"""Saving a data plane's state in a snapshot, and loading it."""
