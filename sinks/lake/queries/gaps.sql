-- Numbers that an origin skipped: events filtered, buried, forgotten or still on their way.
WITH numbered AS (
  SELECT _origin, _seq, lead(_seq) OVER (PARTITION BY _origin ORDER BY _seq) AS following FROM {table}
)
SELECT _origin, _seq + 1 AS first, following - 1 AS last, following - _seq - 1 AS missing
FROM numbered WHERE following > _seq + 1 ORDER BY 1, 2
