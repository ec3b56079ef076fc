"""What a user writes and changes: values and checks, no packets."""
