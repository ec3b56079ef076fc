"""Which rule wins: prefix tries, port maps and rule tables."""
