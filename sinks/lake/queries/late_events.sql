-- By day of event time: events that arrived more than an hour late, and by how much at most (from, to: two parameters).
SELECT date_trunc('day', {time}) AS day, count(*) AS events,
    max(date_diff('millisecond', {time}, _arrived_at)) / 1e3 AS seconds
FROM {table}
WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
    AND _arrived_at > {time} + INTERVAL '1' HOUR
GROUP BY 1 ORDER BY 1
