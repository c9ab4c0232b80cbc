-- Data files by power of two of their size in MB: many small ones ask for `headwater lake compact`.
SELECT CAST(floor(log2(greatest(file_size_in_bytes, 1000000) / 1e6)) AS bigint) AS power_of_two, count(*) AS files,
  sum(file_size_in_bytes) AS bytes, sum(record_count) AS events
FROM "{table}$files" WHERE content = 0 GROUP BY 1 ORDER BY 1
