-- What the server itself brings: functions with their arguments and volatility,
-- operators with their operands.
SELECT 'function', p.oid, p.proname::text, p.proargtypes::text, p.provolatile::text
FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.oid < 16384
UNION ALL
SELECT 'operator', o.oid, o.oprname::text, o.oprleft || ' ' || o.oprright, ''
FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oid < 16384
