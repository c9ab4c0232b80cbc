-- Events and keys by day of event time, between two times (from, to: two parameters).
SELECT date_trunc('day', {time}) AS day, count(*) AS events, count(DISTINCT {key}) AS keys FROM {table}
WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
GROUP BY 1 ORDER BY 1
