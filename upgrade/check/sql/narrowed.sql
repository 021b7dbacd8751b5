-- What publications publish less of than whole tables, of those that are named and
-- publish UPDATE or DELETE: the columns, NULL is all, and the columns that the row
-- filter reads. A partition that is published by its root counts as the root does.
{{if since 15}}
SELECT t.oid, p.pubname::text,
       (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])),
       coalesce((SELECT array_agg(DISTINCT a.attname::text) FROM regexp_matches(r.prqual::text, ':varattno (\d+)', 'g') v(m)
                 JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = v.m[1]::int2), '{}')
FROM unnest($1::oid[]) t(oid)
CROSS JOIN pg_publication p
CROSS JOIN LATERAL (
  SELECT e.* FROM pg_publication_rel e LEFT JOIN pg_partition_ancestors(t.oid) WITH ORDINALITY a(relid, n) ON a.relid = e.prrelid
  WHERE e.prpubid = p.oid AND (e.prrelid = t.oid OR p.pubviaroot AND a.relid IS NOT NULL)
  ORDER BY a.n DESC NULLS LAST LIMIT 1
) r
WHERE (p.pubupdate OR p.pubdelete) AND (r.prattrs IS NOT NULL OR r.prqual IS NOT NULL)
ORDER BY 1, 2
{{else}}
SELECT 0::oid, '', '{}'::text[], '{}'::text[] FROM unnest($1::oid[]) WHERE false
{{end}}
