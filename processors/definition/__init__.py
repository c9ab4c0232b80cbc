"""Define a pipeline: what is computed, never where. Values and checks alone; nothing here reads a record."""
