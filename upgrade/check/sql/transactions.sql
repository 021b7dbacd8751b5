-- Transactions open for 10 s or more, oldest first: those of clients, and those
-- of background workers that write.
SELECT pid, coalesce(usename::text, ''), coalesce(datname::text, ''), coalesce(application_name, ''), coalesce(state, ''),
       left(coalesce(query, ''), 200), extract(epoch FROM clock_timestamp() - xact_start)::float8, backend_xid IS NOT NULL,
       greatest(coalesce(age(backend_xmin), 0), coalesce(age(backend_xid), 0))::bigint
FROM pg_stat_activity
WHERE xact_start < clock_timestamp() - interval '10 seconds' AND pid <> pg_backend_pid()
  AND (backend_type = 'client backend' OR backend_xid IS NOT NULL AND backend_type <> 'parallel worker')
  AND application_name !~ '^crossfade( |$)'
ORDER BY xact_start
LIMIT 200
