"""Run shards inside a Lambda function that Kinesis invokes."""
