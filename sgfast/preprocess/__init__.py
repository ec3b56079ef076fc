"""What happens to the packets of captures before they are judged, a module each: ``apply`` takes a batch of frames and
changes it in place. Stages know frames and headers, no policy and no engine."""
