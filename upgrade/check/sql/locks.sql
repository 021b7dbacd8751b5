-- Locks on user tables that a publication, a trigger or the barrier has to wait
-- for, held for 10 s or more, oldest first. Names are known in their database.
SELECT l.pid, d.datname::text, l.relation, l.mode, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.backend_type, ''),
       left(coalesce(a.query, ''), 200), extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'relation' AND l.granted AND l.relation >= 16384
  AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND a.xact_start < clock_timestamp() - interval '10 seconds' AND a.application_name !~ '^crossfade( |$)'
ORDER BY a.xact_start, l.pid, l.relation
LIMIT 1000
