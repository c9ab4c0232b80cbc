-- The table as it was at a time (one parameter): events and origins then.
SELECT count(*) AS events, count(DISTINCT _origin) AS origins
FROM {table} FOR TIMESTAMP AS OF from_iso8601_timestamp(?)
