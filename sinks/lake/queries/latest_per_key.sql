-- The last event of every key, by event time, between two times (from, to: two parameters).
WITH ranked AS (
  SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {time} DESC, _origin DESC, _seq DESC) AS back FROM {table}
  WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
)
SELECT * FROM ranked WHERE back = 1 ORDER BY {key}
