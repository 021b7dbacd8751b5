-- Functions that have privileges of their own and are not of the database's making.
{{template "common"}}
SELECT n.nspname::text, p.proname::text, pg_get_function_identity_arguments(p.oid), {{types "p.proargtypes"}}
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proacl IS NOT NULL AND (p.oid < 16384 OR EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid))
