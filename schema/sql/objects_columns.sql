-- Columns of tables, views and composite types. pg_% options are the server's
-- own (pitfall 71); a statistics target of -1 is NULL from 17 on.
{{template "common"}},
types AS MATERIALIZED (SELECT t.oid, {{type "t.oid" ""}} AS name FROM pg_type t)
SELECT 'column', {{ident "n.nspname"}} || '.' || {{ident "c.relname"}} || '.' || {{ident "a.attname"}}, ARRAY[
  'type', ty.name || CASE WHEN a.atttypmod >= 0 THEN '(' || a.atttypmod || ')' ELSE '' END, '~type', format_type(a.atttypid, a.atttypmod),
  'position', CASE WHEN c.relispartition OR c.oid NOT IN (SELECT inhrelid FROM pg_inherits)
    THEN row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum)::text END,
  'not null', CASE WHEN a.attnotnull THEN 'true' END,
  'collation', CASE WHEN a.attcollation <> t.typcollation THEN
    {{collation "a.attcollation"}} END,
  'default', CASE WHEN {{if since 12}}a.attgenerated = ''{{else}}true{{end}} THEN pg_get_expr(d.adbin, d.adrelid) END,
  'generated', {{if since 12}}CASE a.attgenerated WHEN 's' THEN 'stored ' WHEN 'v' THEN 'virtual ' END || pg_get_expr(d.adbin, d.adrelid){{else}}NULL{{end}},
  'identity', nullif(a.attidentity::text, ''),
  'storage', CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END,
  'compression', {{if since 14}}nullif(a.attcompression::text, ''){{else}}NULL{{end}},
  'statistics', nullif(a.attstattarget, -1)::text,
  'options', CASE WHEN a.attoptions IS NOT NULL THEN (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_%') END,
  'foreign options', {{sorted "a.attfdwoptions"}},
  'privileges', CASE WHEN a.attacl IS NOT NULL THEN {{acl "a.attacl" "c" "c.relowner"}} END,
  'inherited', CASE WHEN NOT c.relispartition AND c.relkind IN ('r', 'p') AND NOT a.attislocal THEN 'only' END]
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN ns n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
JOIN types ty ON ty.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'
  AND c.oid NOT IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass)
  AND NOT (c.relkind = 'c' AND EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = c.reltype))
