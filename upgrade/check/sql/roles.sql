-- Every role, and those that it is a member of. The parameter says whether
-- passwords may be looked at.
WITH RECURSIVE belongs(member, role) AS (
  SELECT member, roleid FROM pg_auth_members
  UNION
  SELECT b.member, m.roleid FROM belongs b JOIN pg_auth_members m ON m.member = b.role
)
SELECT r.rolname::text, r.rolsuper, r.rolreplication, r.rolbypassrls, r.rolcreatedb, r.rolcreaterole, r.rolcanlogin, r.rolconnlimit,
       ARRAY(SELECT g.rolname::text FROM belongs b JOIN pg_roles g ON g.oid = b.role WHERE b.member = r.oid ORDER BY 1),
       r.rolname = session_user
FROM pg_roles r
ORDER BY 1
