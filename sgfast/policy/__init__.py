"""The policy model, the readers of its file formats, and changes to a policy. These modules do not handle packets."""
