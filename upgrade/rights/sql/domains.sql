-- Checks of domains that run functions of roles that are no superusers: the
-- domain, its owner and whether that is a superuser, the check, its text.
{{template "reach.sql"}}
SELECT DISTINCT n.nspname::text, t.typname::text, o.rolname::text, o.rolsuper, c.conname::text, pg_get_constraintdef(c.oid), c.convalidated
FROM reach r JOIN pg_constraint c ON r.classid = 'pg_constraint'::regclass AND c.oid = r.objid AND c.contype = 'c'
JOIN pg_type t ON t.oid = c.contypid JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_roles o ON o.oid = t.typowner
ORDER BY 1, 2, 5
