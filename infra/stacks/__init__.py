"""Build the stacks: each function fills one and returns what others need of it."""
