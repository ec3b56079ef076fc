"""Rule lookup: prefix tries, port maps and rule tables."""
