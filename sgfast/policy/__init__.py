"""The policy model, the readers of its file formats, and changes to a policy. Nothing here knows packets."""
