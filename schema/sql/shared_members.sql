-- Memberships; below 16 a role is in another once, whoever granted it, and
-- inherits as the member's attribute says.
SELECT r.rolname, m.rolname, CASE WHEN {{if since 16}}g.oid <> 10{{else}}false{{end}} THEN coalesce(g.rolname::text, '') ELSE '' END, am.admin_option,
       {{if since 16}}am.inherit_option, am.set_option{{else}}m.rolinherit, true{{end}}
FROM pg_auth_members am
JOIN pg_roles r ON r.oid = am.roleid
JOIN pg_roles m ON m.oid = am.member
LEFT JOIN pg_roles g ON g.oid = am.grantor
WHERE m.rolname NOT LIKE 'pg\_%'
ORDER BY 1, 2, 3
