-- Every user table. Sizes open the table with ACCESS SHARE, which would wait
-- for whoever holds or waits for it exclusively: there the last VACUUM's
-- numbers serve. The parameter turns sizes off.
WITH ns AS MATERIALIZED ({{template "user_namespaces"}}),
busy AS MATERIALIZED (
  SELECT DISTINCT relation FROM pg_locks
  WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
ext AS MATERIALIZED (
  SELECT d.objid AS relid, e.extname, x.condition
  FROM pg_depend d
  JOIN pg_extension e ON e.oid = d.refobjid
  LEFT JOIN LATERAL (SELECT cond AS condition FROM unnest(e.extconfig, e.extcondition) u(rel, cond) WHERE u.rel = d.objid) x ON true
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
),
trig AS MATERIALIZED (
  SELECT tgrelid, count(*) FILTER (WHERE tgname NOT LIKE 'crossfade\_fence%') AS n,
         count(*) FILTER (WHERE tgname LIKE 'crossfade\_fence%') AS fences
  FROM pg_trigger WHERE NOT tgisinternal GROUP BY 1
),
rules AS MATERIALIZED (SELECT ev_class, count(*) AS n FROM pg_rewrite GROUP BY 1),
parents AS MATERIALIZED (SELECT inhrelid, array_agg(inhparent ORDER BY inhseqno) AS parents FROM pg_inherits GROUP BY 1)
SELECT c.oid, n.nspname, c.relname, pg_get_userbyid(c.relowner), c.relkind::text, c.relpersistence::text, c.relispartition,
       coalesce(p.parents, '{}'),
       CASE WHEN NOT $1 THEN 0 WHEN b.relation IS NOT NULL THEN c.relpages
            ELSE coalesce(pg_relation_size(c.oid) / current_setting('block_size')::int, 0) END,
       CASE WHEN NOT $1 THEN 0 WHEN b.relation IS NOT NULL THEN c.relpages::bigint * current_setting('block_size')::int
            ELSE coalesce(pg_table_size(c.oid), 0) END,
       CASE WHEN NOT $1 OR b.relation IS NOT NULL OR NOT c.relhasindex THEN 0 ELSE coalesce(pg_indexes_size(c.oid), 0) END,
       CASE WHEN c.reltuples < 0 OR c.relpages = 0 AND c.reltuples = 0 THEN -1 ELSE c.reltuples::bigint END,
       pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid),
       coalesce(e.extname, ''), e.condition IS NOT NULL, coalesce(e.condition, ''),
       c.relrowsecurity, c.relforcerowsecurity, coalesce(t.n, 0), coalesce(t.fences, 0) > 0, coalesce(r.n, 0), coalesce(ts.spcname, '')
FROM pg_class c
JOIN ns n ON n.oid = c.relnamespace
LEFT JOIN busy b ON b.relation = c.oid
LEFT JOIN ext e ON e.relid = c.oid
LEFT JOIN trig t ON t.tgrelid = c.oid
LEFT JOIN rules r ON r.ev_class = c.oid
LEFT JOIN parents p ON p.inhrelid = c.oid
LEFT JOIN pg_tablespace ts ON ts.oid = c.reltablespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"
