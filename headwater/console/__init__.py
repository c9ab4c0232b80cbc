"""The page that an operator leaves open: what flows, how hot the shards are, what is amiss and what to do about it."""
