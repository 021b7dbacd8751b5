SELECT r.application_name, coalesce(r.usename::text, ''), coalesce(host(r.client_addr), ''), coalesce(r.state, ''), coalesce(r.sync_state, ''),
       coalesce(s.slot_name::text, ''), coalesce(s.slot_type = 'logical', false),
       coalesce(age(r.backend_xmin), 0)::bigint
FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
ORDER BY 1, 3
