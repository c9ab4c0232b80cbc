"""Run shards under the Kinesis Client Library, through its MultiLangDaemon."""
