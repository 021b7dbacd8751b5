-- What keeps the opening side from making the slots of the way back: one sentence, or NULL.
SELECT string_agg(w, '; ') FROM (
  SELECT format('pid %s of %s holds a transaction open for %s', a.pid, coalesce(a.usename::text, a.backend_type), date_trunc('second', now() - a.xact_start)) w
  FROM pg_stat_activity a
  WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid() AND a.xact_start < now() - interval '1 second'
    AND a.backend_type <> 'logical replication worker' AND a.backend_type NOT LIKE 'logical replication%'
  UNION ALL
  SELECT format('the prepared transaction %L of %s is open', gid, owner) FROM pg_prepared_xacts
  UNION ALL
  SELECT format('autovacuum works to prevent wraparound (pid %s)', a.pid)
  FROM pg_stat_activity a WHERE a.backend_type = 'autovacuum worker' AND a.query LIKE '%(to prevent wraparound)'
) b
