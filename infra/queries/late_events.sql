-- By day of event time: events that arrived more than an hour late, and by how much at most.
SELECT date_trunc('day', {time}) AS day, count(*) AS events, max(date_diff('second', {time}, _arrived_at)) AS seconds
FROM {table} WHERE date_diff('second', {time}, _arrived_at) > 3600 GROUP BY 1 ORDER BY 1
