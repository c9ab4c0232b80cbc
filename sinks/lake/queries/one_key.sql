-- One key's events between two times (key, from, to: three parameters); reads the partitions of that time only.
SELECT * FROM {table}
WHERE {key} = ? AND {time} >= from_iso8601_timestamp(?) AND {time} < from_iso8601_timestamp(?)
ORDER BY {time}, _origin, _seq
