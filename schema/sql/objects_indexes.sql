{{template "common"}}
SELECT 'index', {{ident "n.nspname"}} || '.' || {{ident "i.relname"}}, ARRAY[
  'definition', pg_get_indexdef(i.oid),
  'valid', x.indisvalid::text,
  'clustered', CASE WHEN x.indisclustered THEN 'true' END,
  'replica identity', CASE WHEN x.indisreplident THEN 'true' END,
  'tablespace', (SELECT spcname::text FROM pg_tablespace WHERE oid = i.reltablespace),
  'statistics', st.targets,
  'parent', h.parent]
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class c ON c.oid = x.indrelid
JOIN ns n ON n.oid = i.relnamespace
LEFT JOIN (
  SELECT a.attrelid, string_agg(a.attnum || '=' || a.attstattarget, ', ' ORDER BY a.attnum) AS targets
  FROM pg_attribute a JOIN pg_index x ON x.indexrelid = a.attrelid WHERE a.attstattarget >= 0 AND a.attnum > 0 GROUP BY a.attrelid
) st ON st.attrelid = i.oid
LEFT JOIN (
  SELECT h.inhrelid, {{ident "pn.nspname"}} || '.' || {{ident "p.relname"}} AS parent
  FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
) h ON h.inhrelid = i.oid
WHERE i.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'm')
  AND c.oid NOT IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass)
  AND i.oid NOT IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass)
UNION ALL
SELECT 'statistics', {{ident "n.nspname"}} || '.' || {{ident "s.stxname"}}, ARRAY[
  'owner', pg_get_userbyid(s.stxowner)::text,
  'definition', pg_get_statisticsobjdef(s.oid),
  'statistics', {{if since 13}}nullif(s.stxstattarget, -1)::text{{else}}NULL{{end}}]
FROM pg_statistic_ext s JOIN ns n ON n.oid = s.stxnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_statistic_ext'::regclass AND m.objid = s.oid)
