-- Every user sequence with its parameters and, where one function call tells
-- them, its values: pg_sequence_last_value is NULL for a sequence that is not
-- called, whatever setval(…, false) left in it.
SELECT c.oid, n.nspname, c.relname, pg_get_userbyid(c.relowner), format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax,
       s.seqstart, s.seqcache, s.seqcycle, c.relpersistence::text,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
       {{if since 18}}d.last_value, coalesce(d.is_called, false),
       {{else}}v.last_value, v.last_value IS NOT NULL, {{end -}}
       coalesce(o.relid, 0), coalesce(o.attnum, 0), coalesce(o.owner, ''), coalesce(o.identity, false), coalesce(e.extname, '')
FROM pg_class c
JOIN ({{template "user_namespaces"}}) n ON n.oid = c.relnamespace
JOIN pg_sequence s ON s.seqrelid = c.oid
{{if since 18}}LEFT JOIN LATERAL pg_get_sequence_data(c.oid) d ON true
{{else}}LEFT JOIN LATERAL (SELECT CASE WHEN has_table_privilege(c.oid, 'SELECT') THEN pg_sequence_last_value(c.oid) END AS last_value) v ON true
{{end}}
LEFT JOIN LATERAL (
  SELECT d.refobjid AS relid, d.refobjsubid AS attnum, d.deptype = 'i' AS identity,
         quote_ident(tn.nspname) || '.' || quote_ident(t.relname) || '.' || quote_ident(a.attname) AS owner
  FROM pg_depend d
  JOIN pg_class t ON t.oid = d.refobjid
  JOIN pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
    AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
) o ON true
LEFT JOIN pg_depend x ON x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.refclassid = 'pg_extension'::regclass AND x.deptype = 'e'
LEFT JOIN pg_extension e ON e.oid = x.refobjid
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
