-- The last event of every key, by event time.
WITH ranked AS (
  SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {time} DESC, _origin DESC, _seq DESC) AS back FROM {table}
)
SELECT * FROM ranked WHERE back = 1 ORDER BY {key}
