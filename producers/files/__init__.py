"""Read events from files: NDJSON, CSV and Parquet, as tables of a contract."""
