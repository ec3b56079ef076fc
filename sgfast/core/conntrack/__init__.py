"""The connection table: entries, deadlines, and the states of each protocol."""
