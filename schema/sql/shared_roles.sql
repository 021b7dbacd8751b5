-- Every role that initdb did not make, and the one that it did make (OID 10).
-- The parameter is whether pg_authid may be read.
SELECT r.oid, r.rolname, r.oid = 10, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls,
       r.rolconnlimit, coalesce(r.rolvaliduntil::text, ''), {{if .}}coalesce(a.rolpassword, ''){{else}}''{{end}},
       coalesce(shobj_description(r.oid, 'pg_authid'), '')
FROM pg_roles r
{{if .}}JOIN pg_authid a ON a.oid = r.oid{{end}}
WHERE r.rolname NOT LIKE 'pg\_%'
ORDER BY r.rolname::text COLLATE "C"
