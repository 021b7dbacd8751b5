-- The column of each of these tables that has the most values.
SELECT DISTINCT ON (c.oid) c.oid, a.attname::text
FROM pg_statistic s JOIN pg_class c ON c.oid = s.starelid JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum
WHERE c.oid = ANY ($1::oid[]) AND NOT s.stainherit AND NOT a.attisdropped
  AND EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree' WHERE o.opcdefault AND o.opcintype = a.atttypid)
ORDER BY c.oid, CASE WHEN s.stadistinct < 0 THEN -s.stadistinct * greatest(c.reltuples, 1) ELSE s.stadistinct END DESC, a.attnum
