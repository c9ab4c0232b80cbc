"""Run a pipeline's shards: in one process, under the Kinesis Client Library, or as a Lambda function."""
