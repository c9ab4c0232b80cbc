-- What arrived last of the events between two times (from, to: two parameters).
SELECT * FROM {table}
WHERE {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
ORDER BY _arrived_at DESC, _origin, _seq LIMIT 100
