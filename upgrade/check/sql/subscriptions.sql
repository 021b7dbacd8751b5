SELECT d.datname::text, s.subname::text, s.subenabled, coalesce(s.subslotname::text, ''),
       EXISTS (SELECT FROM pg_stat_subscription t WHERE t.subid = s.oid AND t.pid IS NOT NULL)
FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
ORDER BY 1, 2
