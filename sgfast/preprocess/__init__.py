"""Steps that process packets before they are judged. Each step has ``apply``, which changes a batch of frames in place.
Steps depend on frames and headers, but neither on the policy nor on the engine.
"""
