-- The indexes of the named tables: whether each can be a replica identity, and
-- whether apply can find rows by it under REPLICA IDENTITY FULL (16 and later by
-- any btree, 17 and later by hash), with how many values its first column has
-- (less than 0: as a part of the rows, 0: not known), and the columns of its key.
SELECT c.oid, i.relname::text, x.indisunique,
       CASE WHEN NOT x.indisunique THEN 'it is not unique'
            WHEN NOT x.indimmediate THEN 'it is deferrable'
            WHEN NOT x.indisvalid THEN 'it is not valid'
            WHEN x.indpred IS NOT NULL THEN 'it is partial'
            WHEN x.indexprs IS NOT NULL THEN 'it has an expression'
            WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) AND NOT a.attnotnull)
              THEN 'one of its columns may be NULL'
            ELSE '' END,
       CASE WHEN x.indisvalid AND x.indpred IS NULL AND x.indkey[0] <> 0 THEN m.amname::text ELSE '' END,
       coalesce((SELECT s.stadistinct FROM pg_statistic s WHERE s.starelid = c.oid AND s.staattnum = x.indkey[0] AND NOT s.stainherit), 0)::float8,
       coalesce((SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) WITH ORDINALITY k(attnum, n)
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum), '{}')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid JOIN pg_am m ON m.oid = i.relam
WHERE c.oid = ANY ($1::oid[])
ORDER BY 1, 2
