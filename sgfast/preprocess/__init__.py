"""Steps that packets pass before they are judged. Each step has ``apply``, which changes a batch of frames in place.
Steps know frames and headers, but neither the policy nor the engine.
"""
