"""Counts for the reports, taken while packets are judged."""
