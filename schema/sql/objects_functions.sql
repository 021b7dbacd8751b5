{{template "common"}}
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END AS kind,
  quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name, ARRAY[
  'owner', pg_get_userbyid(p.proowner)::text,
  'privileges', {{acl "p.proacl" "f" "p.proowner"}},
  'arguments', pg_get_function_arguments(p.oid),
  'result', pg_get_function_result(p.oid),
  'language', l.lanname::text,
  'source', p.prosrc,
  'library', p.probin,
  'body', {{if since 14}}pg_get_function_sqlbody(p.oid){{else}}NULL{{end}},
  'kind', nullif(p.prokind::text, 'f'),
  'volatility', p.provolatile::text,
  'strict', CASE WHEN p.proisstrict THEN 'true' END,
  'security definer', CASE WHEN p.prosecdef THEN 'true' END,
  'leakproof', CASE WHEN p.proleakproof THEN 'true' END,
  'parallel', p.proparallel::text,
  'cost', p.procost::text,
  'rows', p.prorows::text,
  'settings', {{sorted "p.proconfig"}},
  'support', {{if since 12}}nullif(p.prosupport::regproc::text, '-'){{else}}NULL{{end}},
  'transforms', (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY 1) FROM unnest(p.protrftypes) t),
  'aggregate', CASE WHEN p.prokind = 'a' THEN (
    SELECT concat_ws(' ', a.aggkind, a.aggnumdirectargs, a.aggtransfn::regproc, a.aggfinalfn::regproc, a.aggcombinefn::regproc, a.aggserialfn::regproc,
      a.aggdeserialfn::regproc, a.aggmtransfn::regproc, a.aggminvtransfn::regproc, a.aggmfinalfn::regproc, a.aggfinalextra, a.aggmfinalextra,
      a.aggfinalmodify, a.aggmfinalmodify, a.aggsortop::regoperator, format_type(a.aggtranstype, NULL), a.aggtransspace,
      format_type(nullif(a.aggmtranstype, 0), NULL), a.aggmtransspace, 'from', a.agginitval, 'and', a.aggminitval)
    FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END] AS properties
FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
  -- the constructors of range types come and go with their type
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
