-- Events by day of event time.
SELECT date_trunc('day', {time}) AS day, count(*) AS events FROM {table} GROUP BY 1 ORDER BY 1
