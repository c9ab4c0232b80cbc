-- The hundred keys with most events between two times (from, to: two parameters).
SELECT {key}, count(*) AS events FROM {table}
WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 100
