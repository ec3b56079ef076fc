"""Two data planes that judge the same packets, and where they disagree."""
