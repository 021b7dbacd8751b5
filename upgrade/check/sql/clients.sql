-- The application's sessions by who, where to and where from.
SELECT coalesce(a.usename::text, ''), coalesce(a.datname::text, ''), coalesce(host(a.client_addr), ''), coalesce(s.ssl, false),
       coalesce(min(a.application_name), ''), count(*)
FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid)
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND a.application_name !~ '^crossfade( |$)'
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
