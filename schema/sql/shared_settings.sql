-- Settings of roles, of databases and of roles in databases. The read-only
-- default of a database is the tool's fence (and its undo keeps what was there).
SELECT coalesce(d.datname::text, ''), coalesce(r.rolname::text, ''), split_part(c.setting, '=', 1), substr(c.setting, strpos(c.setting, '=') + 1)
FROM pg_db_role_setting s
LEFT JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole,
LATERAL unnest(s.setconfig) WITH ORDINALITY c(setting, n)
WHERE (s.setdatabase = 0 OR d.datname = ANY ($1)) AND (s.setrole = 0 OR r.oid IS NOT NULL)
  AND NOT (s.setrole = 0 AND split_part(c.setting, '=', 1) = 'default_transaction_read_only')
ORDER BY 1, 2, c.n
