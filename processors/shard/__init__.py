"""Carry one shard from the stream to the sinks: claim it, do what the engine says, commit."""
