"""What happens to the packets of captures before they are judged. Each step has ``apply``, which takes a batch of
frames and changes it in place. Steps know frames and headers, no policy and no engine."""
