"""Words and tools that every other part of the data plane uses."""
