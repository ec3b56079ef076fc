"""The path of one packet from its headers to its verdict."""
