"""Other clouds' exports as policies."""
