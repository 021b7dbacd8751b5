-- relreplident of every table, and its indexes that are unique.
SELECT c.oid, c.relreplident::text, i.relname, x.indisprimary, x.indisreplident,
       x.indisvalid AND x.indisready AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL AS whole,
       x.indimmediate,
       coalesce(k.cols, '{}'), coalesce(k.notnull, false), x.indnkeyatts::int
FROM pg_class c
JOIN ({{template "user_namespaces"}}) n ON n.oid = c.relnamespace
LEFT JOIN (pg_index x JOIN pg_class i ON i.oid = x.indexrelid) ON x.indrelid = c.oid AND x.indisunique
LEFT JOIN LATERAL (
  SELECT array_agg(a.attname::text ORDER BY u.n) AS cols, bool_and(a.attnotnull) AS notnull
  FROM unnest(x.indkey::int2[]) WITH ORDINALITY u(num, n)
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num
  WHERE u.n <= x.indnkeyatts
) k ON true
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
ORDER BY c.oid, x.indnkeyatts, i.relname
