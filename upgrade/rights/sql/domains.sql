-- Checks of domains that run functions of roles that are no superusers: the
-- domain, its owner and whether that is a superuser, the check, its text, whether
-- it is valid, whether PostgreSQL can add or validate it no more, and one of the
-- functions and its owner.
{{template "reach.sql"}}
SELECT DISTINCT ON (1, 2, 5) n.nspname::text, t.typname::text, o.rolname::text, o.rolsuper, c.conname::text, pg_get_constraintdef(c.oid), c.convalidated,
       -- a column of a table has the domain inside an array, a row or a range
       EXISTS (SELECT FROM reach t JOIN pg_type y ON t.classid = 'pg_type'::regclass AND y.oid = t.objid AND y.typtype <> 'd'
               JOIN pg_attribute a ON a.atttypid = y.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_class k ON k.oid = a.attrelid AND k.relkind IN ('r', 'p', 'm')
               WHERE t.fn = r.fn) contained, r.fn::regprocedure::text, pg_get_userbyid(p.proowner)::text
FROM reach r JOIN pg_constraint c ON r.classid = 'pg_constraint'::regclass AND c.oid = r.objid AND c.contype = 'c'
JOIN pg_type t ON t.oid = c.contypid JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_roles o ON o.oid = t.typowner JOIN pg_proc p ON p.oid = r.fn
ORDER BY 1, 2, 5, contained DESC, 9
