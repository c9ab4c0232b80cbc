"""The stacks, each a function that fills one and says what others need of it."""
