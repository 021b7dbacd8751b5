-- The foreign keys of all tables: the table, its owner and whether that is a
-- superuser, whether it is partitioned, the constraint, and the other table.
SELECT n.nspname::text, c.relname::text, o.rolname::text, o.rolsuper, c.relkind = 'p', k.conname::text, fn.nspname::text, fc.relname::text
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
JOIN pg_class fc ON fc.oid = k.confrelid JOIN pg_namespace fn ON fn.oid = fc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
ORDER BY 1, 2, 6
