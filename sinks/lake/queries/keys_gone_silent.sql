-- Keys with events in a first span of time and none in a second (from, to, from, to: four parameters): a join.
WITH before AS (
  SELECT {key}, count(*) AS events, max({time}) AS newest FROM {table}
  WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
  GROUP BY 1
), since AS (
  SELECT DISTINCT {key} FROM {table}
  WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
)
SELECT before.{key}, before.events, before.newest
FROM before LEFT JOIN since ON before.{key} = since.{key}
WHERE since.{key} IS NULL ORDER BY before.events DESC, 1
