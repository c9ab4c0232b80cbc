-- The table's commits that time travel can go back to.
SELECT committed_at, snapshot_id, operation, summary['added-records'] AS added, summary['total-records'] AS total
FROM "{table}$snapshots" ORDER BY 1
