-- Which of the sequences $1 do not stand at $2 and $3 any more, each by its place in
-- $1, and where they stand: nothing else is read or sent, because this runs while
-- clients wait. NULL is a sequence that is not called.
SELECT o.n,
       {{- if since 18}} (d.v).last_value, coalesce((d.v).is_called, false)
       {{- else}} v.last_value, v.last_value IS NOT NULL{{end}}
FROM unnest($1::oid[], $2::int8[], $3::bool[]) WITH ORDINALITY o(oid, last, called, n),
{{- if since 18}}
LATERAL (SELECT pg_get_sequence_data(o.oid) AS v OFFSET 0) d
WHERE (d.v).last_value IS DISTINCT FROM o.last OR coalesce((d.v).is_called, false) <> o.called
{{- else}}
LATERAL (SELECT pg_sequence_last_value(o.oid) AS last_value OFFSET 0) v
WHERE v.last_value IS DISTINCT FROM o.last
{{- end}}
