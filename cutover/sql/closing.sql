-- What keeps the closing side from closing: one sentence, or NULL.
-- $1: subscriptions of ours; $2: seconds after which a write transaction is too old to begin.
SELECT string_agg(w, '; ') FROM (
  SELECT format('the prepared transaction %L of %s is open', gid, owner) w
  FROM pg_prepared_xacts WHERE database = current_database()
  UNION ALL
  SELECT format('subscription %I of somebody else is enabled', s.subname)
  FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
  WHERE d.datname = current_database() AND s.subenabled AND NOT s.subname = ANY ($1::text[])
  UNION ALL
  SELECT format('pid %s of %s (%s) has been writing for %s: %s', a.pid, a.usename, coalesce(nullif(a.application_name, ''), '?'),
                date_trunc('second', now() - a.xact_start), left(a.query, 80))
  FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
    AND a.backend_type IN ('client backend', 'background worker')
    AND a.xact_start < now() - make_interval(secs => $2::double precision)
) b
