"""Erase all that is kept of one key, and look for what is left."""
