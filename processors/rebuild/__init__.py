"""Build a view again from the lake or from the stream, beside the one that serves."""
