"""Keep the lake: Parquet files in Iceberg tables, published, maintained and queried."""
