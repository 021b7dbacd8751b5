-- What somebody has put into a database: kind, one of them, '', '', how many.
-- Objects of extensions and those that initdb made are not counted.
WITH ns AS MATERIALIZED (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
    AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
),
member AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
SELECT 'schema', nspname::text, EXISTS (SELECT FROM pg_class u WHERE u.relnamespace = pg_namespace.oid AND (u.relname = 'upgrade' OR u.relname LIKE 'upgrade\_%'))::text, '', 1::bigint FROM pg_namespace WHERE nspname = 'crossfade'
UNION ALL
SELECT 'no-plpgsql', '', '', '', 0 WHERE NOT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql')
UNION ALL
SELECT 'user-' || CASE WHEN c.relkind IN ('r', 'p') THEN 'table' WHEN c.relkind IN ('v', 'm') THEN 'view' WHEN c.relkind = 'S' THEN 'sequence'
                       WHEN c.relkind = 'f' THEN 'foreign table' ELSE 'type' END,
       min(quote_ident(n.nspname) || '.' || quote_ident(c.relname)), '',
       CASE WHEN bool_or(c.relkind = 'r' AND (c.reltuples > 0 OR c.relpages > 0)) THEN 'rows' ELSE '' END, count(*)
FROM pg_class c JOIN ns n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
GROUP BY 1
UNION ALL
SELECT 'user-function', min(quote_ident(n.nspname) || '.' || quote_ident(p.proname)), '', '', count(*)
FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
GROUP BY 1
UNION ALL
SELECT 'user-type', min(quote_ident(n.nspname) || '.' || quote_ident(t.typname)), '', '', count(*)
FROM pg_type t JOIN ns n ON n.oid = t.typnamespace
WHERE t.typtype IN ('d', 'e', 'r') AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
GROUP BY 1
UNION ALL
SELECT 'user-schema', min(quote_ident(n.nspname)), '', '', count(*)
FROM ns n
WHERE n.nspname <> 'public' AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_namespace'::regclass AND m.objid = n.oid)
GROUP BY 1
UNION ALL
SELECT 'user-large object', min(oid)::text, '', '', count(*) FROM pg_largeobject_metadata HAVING count(*) > 0
UNION ALL
SELECT 'publication', pubname::text, '', '', 1 FROM pg_publication
UNION ALL
SELECT 'event-trigger', evtname::text, evtenabled::text, evtfoid::regproc::text, 1 FROM pg_event_trigger WHERE evtname NOT LIKE 'crossfade\_ddl%'
UNION ALL
SELECT 'extension', extname::text, extversion, '', 1 FROM pg_extension WHERE extname <> 'plpgsql'
ORDER BY 1, 2
