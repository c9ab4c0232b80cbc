-- The hundred keys with most events.
SELECT {key}, count(*) AS events FROM {table} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 100
