-- The indexes of the named tables, and whether each can be a replica identity.
SELECT c.oid, i.relname::text,
       CASE WHEN NOT x.indisunique THEN 'it is not unique'
            WHEN NOT x.indimmediate THEN 'it is deferrable'
            WHEN NOT x.indisvalid THEN 'it is not valid'
            WHEN x.indpred IS NOT NULL THEN 'it is partial'
            WHEN x.indexprs IS NOT NULL THEN 'it has an expression'
            WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) AND NOT a.attnotnull)
              THEN 'one of its columns may be NULL'
            ELSE '' END
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
WHERE c.oid = ANY ($1::oid[])
ORDER BY 1, 2
