"""Keep the views: one DynamoDB item a key and window, merged from the slots of all shards."""
