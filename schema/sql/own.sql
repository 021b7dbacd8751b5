{{define "user_namespaces" -}}
SELECT oid, nspname FROM pg_namespace
WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
  AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
{{- end}}

{{define "common" -}}
WITH ns AS MATERIALIZED ({{template "user_namespaces"}}),
member AS MATERIALIZED (
  SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
)
{{- end}}

-- Triggers of users: below 15 those that a partition has from its root count
-- as internal, as do those of foreign and deferrable keys.
{{define "user_trigger" -}}
{{if since 13}}(NOT t.tgisinternal OR t.tgparentid <> 0
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')){{else}}NOT t.tgisinternal{{end}}
{{- end}}
