-- Means and percentiles by hour, region and metric, between two times (from, to: two parameters).
SELECT date_trunc('hour', ts) AS hour, region, metric, count(*) AS events, avg(value) AS mean,
  approx_percentile(value, 0.5) AS median, approx_percentile(value, 0.95) AS p95
FROM {table}
WHERE ts >= from_iso8601_timestamp(?) AND ts < from_iso8601_timestamp(?)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
