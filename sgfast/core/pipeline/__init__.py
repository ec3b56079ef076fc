"""One packet from its headers to its verdict."""
