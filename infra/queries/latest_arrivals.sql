-- What arrived last.
SELECT * FROM {table} ORDER BY _arrived_at DESC, _origin, _seq LIMIT 100
