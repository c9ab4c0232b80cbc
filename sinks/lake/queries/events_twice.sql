-- Events that are in the table more than once, by identity; the answer is empty.
SELECT _origin, _seq, count(*) AS copies FROM {table} GROUP BY 1, 2 HAVING count(*) > 1
