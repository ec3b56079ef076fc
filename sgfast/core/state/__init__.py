"""Snapshots of a data plane, and back."""
