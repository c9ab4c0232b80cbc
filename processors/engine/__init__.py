"""Turn the records of one shard into effects: pure, total, and decided by the shard's prefix alone."""
