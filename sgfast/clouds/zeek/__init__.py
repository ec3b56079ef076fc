"""The connection log of Zeek."""
