{{define "user_namespaces" -}}
SELECT oid, nspname FROM pg_namespace
WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
  AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
{{- end}}

{{define "common" -}}
WITH ns AS MATERIALIZED ({{template "user_namespaces"}}),
member AS MATERIALIZED (
  SELECT classid, objid, refobjid AS extension FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
)
{{- end}}

-- Triggers of users: below 15 those that a partition has from its root count
-- as internal, as do those of foreign and deferrable keys.
{{define "user_trigger" -}}
{{if since 13}}(NOT t.tgisinternal OR t.tgparentid <> 0
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')){{else}}NOT t.tgisinternal{{end}}
{{- end}}

{{- /* What d (classoid, objoid, objsubid) is called, the same on every major:
where its identity has types in it, which servers spell in their own way, the
types are ours. i is its pg_identify_object, with all identifiers quoted. */ -}}
{{define "called" -}}
i.type || ' ' || CASE d.classoid
  WHEN 'pg_proc'::regclass THEN {{proc_with_types "d.objoid"}}
  WHEN 'pg_type'::regclass THEN {{type "d.objoid" ""}}
  WHEN 'pg_operator'::regclass THEN {{oper "d.objoid"}}
  WHEN 'pg_cast'::regclass THEN (SELECT {{type "c.castsource" ""}} || ' as ' || {{type "c.casttarget" ""}} FROM pg_cast c WHERE c.oid = d.objoid)
  WHEN 'pg_transform'::regclass THEN (SELECT {{type "t.trftype" ""}} || ' for ' || {{ident "l.lanname"}} FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang WHERE t.oid = d.objoid)
  WHEN 'pg_constraint'::regclass THEN (SELECT {{ident "k.conname"}} || ' on ' || coalesce({{type "k.contypid" ""}}, (SELECT {{ident "n.nspname"}} || '.' || {{ident "c.relname"}} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = k.conrelid))
                                       FROM pg_constraint k WHERE k.oid = d.objoid)
  ELSE regexp_replace(i.identity, '"([a-z_][a-z0-9_$]*)"', '\1', 'g') END
{{- end}}

{{define "ours" -}}
(i.identity = '"crossfade"' OR i.identity LIKE '"crossfade".%' OR i.identity LIKE '"crossfade\_%')
{{- end}}

{{/* A comment or label, d, of what no upgrade carries over. */}}
{{define "stays" -}}
d.classoid = ANY ('{pg_publication,pg_subscription,pg_largeobject}'::regclass[])
{{- end}}
