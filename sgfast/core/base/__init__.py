"""Types and helpers that the rest of the data plane shares."""
