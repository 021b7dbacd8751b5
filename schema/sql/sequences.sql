-- Every user sequence with its parameters and, where one function call tells
-- them, its values: pg_sequence_last_value is NULL for a sequence that is not
-- called, whatever setval(..., false) left in it. Nothing else is read: this
-- runs while clients wait.
SELECT c.oid, n.nspname, c.relname, pg_get_userbyid(c.relowner), s.seqtypid::int8, s.seqincrement, s.seqmin, s.seqmax,
       s.seqstart, s.seqcache, s.seqcycle, c.relpersistence::text, p.readable,
       {{- if since 18}} (d.v).last_value, coalesce((d.v).is_called, false)
       {{- else}} v.last_value, v.last_value IS NOT NULL{{end}}
FROM pg_class c
JOIN ({{template "user_namespaces"}}) n ON n.oid = c.relnamespace
JOIN pg_sequence s ON s.seqrelid = c.oid,
LATERAL (SELECT current_setting('is_superuser') = 'on' OR has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable) p
{{- if since 18}},
LATERAL (SELECT pg_get_sequence_data(c.oid) AS v OFFSET 0) d
{{- else}},
LATERAL (SELECT CASE WHEN p.readable THEN pg_sequence_last_value(c.oid) END AS last_value OFFSET 0) v
{{- end}}
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
