-- Schemas, and everything that has a row in pg_class but indexes.
{{template "common"}}
SELECT 'schema' AS kind, {{ident "n.nspname"}} AS name, ARRAY[
  'owner', pg_get_userbyid(n.nspowner)::text,
  'privileges', {{acl "n.nspacl" "n" "n.nspowner"}}] AS properties
FROM pg_namespace n
WHERE n.oid IN (SELECT oid FROM ns) AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_namespace'::regclass AND m.objid = n.oid)
UNION ALL
SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                      WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' WHEN 'S' THEN 'sequence' END,
  {{ident "n.nspname"}} || '.' || {{ident "c.relname"}}, ARRAY[
  'owner', pg_get_userbyid(c.relowner)::text,
  'privileges', {{acl "c.relacl" "CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\"" "c.relowner"}},
  'persistence', CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
  'options', {{sorted "c.reloptions"}},
  'toast options', (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM pg_class t, unnest(t.reloptions) o WHERE t.oid = c.reltoastrelid AND t.reloptions IS NOT NULL),
  'replica identity', CASE WHEN c.relkind IN ('r', 'p') THEN c.relreplident::text END,
  'row level security', CASE WHEN c.relrowsecurity THEN 'enabled' END,
  'row level security for the owner', CASE WHEN c.relforcerowsecurity THEN 'forced' END,
  'tablespace', (SELECT spcname::text FROM pg_tablespace WHERE oid = c.reltablespace),
  'access method', CASE WHEN c.relkind IN ('r', 'm') THEN {{if since 12}}(SELECT amname::text FROM pg_am WHERE oid = c.relam){{else}}'heap'{{end}} END,
  'type', {{type "c.reloftype" ""}},
  'partition key', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
  'partition bound', CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END,
  'parents', CASE WHEN c.relkind IN ('r', 'p', 'f') THEN (
    SELECT string_agg({{ident "pn.nspname"}} || '.' || {{ident "p.relname"}}, ', ' ORDER BY i.inhseqno)
    FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid) END,
  'populated', CASE WHEN c.relkind = 'm' THEN c.relispopulated::text END,
  'server', CASE WHEN c.relkind = 'f' THEN (SELECT s.srvname::text FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid) END,
  'foreign options', CASE WHEN c.relkind = 'f' THEN (SELECT {{sorted "f.ftoptions"}} FROM pg_foreign_table f WHERE f.ftrelid = c.oid) END,
  'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
  'sequence type', {{type "s.seqtypid" ""}}, 'start', s.seqstart::text, 'increment', s.seqincrement::text, 'minimum', s.seqmin::text,
  'maximum', s.seqmax::text, 'cache', s.seqcache::text, 'cycle', s.seqcycle::text,
  'owned by', CASE WHEN c.relkind = 'S' THEN (
    SELECT {{ident "tn.nspname"}} || '.' || {{ident "t.relname"}} || '.' || {{ident "a.attname"}} || CASE d.deptype WHEN 'i' THEN ' as identity' ELSE '' END
    FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass
      AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')) END]
FROM pg_class c
JOIN ns n ON n.oid = c.relnamespace
LEFT JOIN pg_sequence s ON c.relkind = 'S' AND s.seqrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S') AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
  AND NOT (c.relkind = 'c' AND EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = c.reltype))
