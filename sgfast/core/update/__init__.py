"""What a change of the policy does to connections."""
