SELECT d.oid, d.datname::text, d.datallowconn, d.datistemplate, d.datconnlimit, pg_encoding_to_char(d.encoding)::text,
       {{if since 15}}d.datlocprovider::text{{else}}'c'{{end}}, d.datcollate::text, d.datctype::text,
       {{if since 17}}coalesce(d.datlocale, ''){{else if since 15}}coalesce(d.daticulocale, ''){{else}}''{{end}},
       {{if since 16}}coalesce(d.daticurules, ''){{else}}''{{end}},
       {{if since 15}}coalesce(d.datcollversion, ''), coalesce(pg_database_collation_actual_version(d.oid), ''){{else}}'',
       coalesce((SELECT pg_collation_actual_version(c.oid) FROM pg_collation c
                 WHERE c.collprovider = 'c' AND lower(replace(c.collcollate::text, '-', '')) = lower(replace(d.datcollate::text, '-', '')) LIMIT 1), ''){{end}},
       t.spcname::text, age(d.datfrozenxid)::bigint, mxid_age(d.datminmxid)::bigint
FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
ORDER BY 2
