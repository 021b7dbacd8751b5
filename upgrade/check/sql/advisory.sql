-- Advisory locks by who holds them.
SELECT d.datname::text, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), count(*)
FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND l.granted AND a.application_name !~ '^crossfade( |$)'
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
