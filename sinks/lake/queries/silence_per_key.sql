-- Keys by their longest silence between two events, in seconds, and their last event (from, to: two parameters).
WITH paused AS (
  SELECT {key}, {time},
    date_diff('millisecond', lag({time}) OVER (PARTITION BY {key} ORDER BY {time}), {time}) / 1e3 AS pause
  FROM {table}
  WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
)
SELECT {key}, max(pause) AS longest, max({time}) AS newest FROM paused GROUP BY 1 ORDER BY 2 DESC NULLS LAST, 1 LIMIT 100
