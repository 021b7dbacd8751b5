-- The replica identity of tables of new: $1 schemas, $2 names, $3 the indexes
-- that they are to have. Tables that are not there have no row; the last column
-- says whether the index is there.
SELECT w.schema, w.name, c.relreplident::text, coalesce(i.relname::text, ''),
       EXISTS (SELECT FROM pg_index x JOIN pg_class k ON k.oid = x.indexrelid WHERE x.indrelid = c.oid AND k.relname = w.index)
FROM unnest($1::text[], $2::text[], $3::text[]) w(schema, name, index)
JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind = 'r'
LEFT JOIN pg_index x ON x.indrelid = c.oid AND x.indisreplident LEFT JOIN pg_class i ON i.oid = x.indexrelid
ORDER BY 1, 2
