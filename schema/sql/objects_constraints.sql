-- Constraints of tables and domains. NOT NULL has a row of its own from 17
-- (domains) and 18 (tables) on, and is a property of the column here. What a
-- partition has from its root's foreign key bears names of the server's choice.
{{template "common"}}
SELECT CASE WHEN k.contypid <> 0 THEN 'domain constraint' ELSE 'constraint' END,
  {{ident "k.conname"}} || ' on ' || CASE WHEN k.contypid <> 0 THEN {{ident "tn.nspname"}} || '.' || {{ident "t.typname"}}
                                       ELSE {{ident "n.nspname"}} || '.' || {{ident "c.relname"}} END, ARRAY[
  'definition', pg_get_constraintdef(k.oid),
  'validated', k.convalidated::text,
  'parent', CASE WHEN k.conparentid <> 0 AND k.contype IN ('p', 'u') THEN (SELECT {{ident "conname"}} FROM pg_constraint WHERE oid = k.conparentid) END,
  'enforced by', CASE WHEN k.contype = 'f' AND EXISTS (SELECT FROM pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled <> 'O') THEN 'disabled triggers' END]
FROM pg_constraint k
LEFT JOIN pg_class c ON c.oid = k.conrelid
LEFT JOIN ns n ON n.oid = c.relnamespace
LEFT JOIN pg_type t ON t.oid = k.contypid
LEFT JOIN ns tn ON tn.oid = t.typnamespace
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND (n.oid IS NOT NULL AND c.relpersistence <> 't' OR tn.oid IS NOT NULL)
  AND NOT (k.contype = 'f' AND k.conparentid <> 0)
  AND k.conrelid NOT IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass)
  AND k.contypid NOT IN (SELECT objid FROM member WHERE classid = 'pg_type'::regclass)
