"""Two data planes that judge the same packets, and their disagreements."""
