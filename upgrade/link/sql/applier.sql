-- One row a link on the side that applies. pg_subscription is shared between
-- databases; pg_subscription_rel is of the connected one.
SELECT n.name,
       s.oid IS NOT NULL,
       coalesce(s.subenabled, false),
       coalesce(s.oid, 0),
       (SELECT a.pid FROM pg_stat_subscription a WHERE a.subid = s.oid AND a.relid IS NULL AND a.pid IS NOT NULL ORDER BY a.pid LIMIT 1),
       (SELECT o.remote_lsn FROM pg_replication_origin_status o WHERE o.external_id = 'pg_' || s.oid),
       %s::bigint,
       (SELECT count(*) FROM pg_subscription_rel r WHERE r.srsubid = s.oid)::int,
       (SELECT count(*) FROM pg_subscription_rel r WHERE r.srsubid = s.oid AND r.srsubstate = 'r')::int
FROM unnest($1::text[]) n(name)
LEFT JOIN pg_subscription s ON s.subname = n.name
