-- The table as it was an hour ago: events and origins then. The time is to be edited: it cannot be a parameter.
SELECT count(*) AS events, count(DISTINCT _origin) AS origins
FROM {table} FOR TIMESTAMP AS OF current_timestamp - INTERVAL '1' HOUR
