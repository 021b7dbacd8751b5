SELECT d.oid, d.datname, pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate::text, d.datctype::text,
       {{if since 15}}d.datlocprovider::text{{else}}'c'{{end}},
       {{if since 17}}coalesce(d.datlocale, ''){{else if since 15}}coalesce(d.daticulocale, ''){{else}}''{{end}},
       {{if since 16}}coalesce(d.daticurules, ''){{else}}''{{end}},
       d.datconnlimit, d.datistemplate, t.spcname, d.dattablespace = 1663,
       coalesce(shobj_description(d.oid, 'pg_database'), ''),
       ARRAY(SELECT concat_ws(chr(1), CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable)
             FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a GROUP BY a.grantee, a.privilege_type, a.is_grantable ORDER BY 1)
FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
WHERE d.datname = ANY ($1)
ORDER BY d.datname::text COLLATE "C"
