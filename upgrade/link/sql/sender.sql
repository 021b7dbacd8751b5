-- (Before 13 a slot has no wal_status and no safe_wal_size.)
-- One row a link on the side that sends. Never sent_lsn for lag: it runs ahead
-- while the walsender skips what is not published.
SELECT n.name,
       s.slot_name IS NOT NULL,
       coalesce(s.active, false),
       coalesce(to_jsonb(s) ->> 'wal_status' = 'lost', false),
       pg_current_wal_insert_lsn(),
       r.sent_lsn,
       s.confirmed_flush_lsn,
       s.restart_lsn,
       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint,
       s.active_pid,
       (to_jsonb(s) ->> 'safe_wal_size')::bigint,
       (SELECT count(*) FROM pg_publication p JOIN pg_publication_rel pr ON pr.prpubid = p.oid WHERE p.pubname = n.name)::int,
       r.state, r.sync_state, r.sync_priority, r.write_lsn, r.flush_lsn, r.replay_lsn, r.write_lag, r.flush_lag, r.replay_lag
FROM unnest($1::text[]) n(name)
LEFT JOIN pg_replication_slots s ON s.slot_name = n.name
LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
