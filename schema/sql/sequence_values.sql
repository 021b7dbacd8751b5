-- Where the sequences of $1 stand, each by its place in $1: nothing else is read,
-- because this runs while clients wait. NULL is a sequence that is not called.
SELECT o.n,
       {{- if since 18}} (d.v).last_value, coalesce((d.v).is_called, false)
       {{- else}} v.last_value, v.last_value IS NOT NULL{{end}}
FROM unnest($1::oid[]) WITH ORDINALITY o(oid, n),
{{- if since 18}}
LATERAL (SELECT pg_get_sequence_data(o.oid) AS v OFFSET 0) d
{{- else}}
LATERAL (SELECT pg_sequence_last_value(o.oid) AS last_value OFFSET 0) v
{{- end}}
