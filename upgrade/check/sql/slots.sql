SELECT slot_name::text, slot_type, coalesce(plugin::text, ''), coalesce(database::text, ''), active, temporary,
       greatest(0, coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
                            restart_lsn), 0))::bigint,
       {{if since 13}}coalesce(wal_status, ''){{else}}''{{end}},
       {{if since 17}}failover, synced{{else}}false, false{{end}},
       greatest(coalesce(age(xmin), 0), coalesce(age(catalog_xmin), 0))::bigint
FROM pg_replication_slots
ORDER BY 1
