-- The functions of schema $1 called $2: what they take, and whether that is $3.
SELECT pg_get_function_identity_arguments(p.oid), {{types "p.proargtypes"}} = $3
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2
ORDER BY 2 DESC
