"""Amazon Web Services: accounts, scripts, and flow logs as text, JSON and Parquet."""
