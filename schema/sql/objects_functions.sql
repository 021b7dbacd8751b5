{{template "common"}}
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END AS kind,
  {{ident "n.nspname"}} || '.' || {{ident "p.proname"}} || '(' || {{types "p.proargtypes"}} || ')' AS name, ARRAY[
  'owner', pg_get_userbyid(p.proowner)::text,
  'privileges', {{acl "p.proacl" "f" "p.proowner"}},
  'arguments', (
    SELECT string_agg(concat_ws(' ', nullif(u.mode::text, 'i'), CASE WHEN u.name <> '' THEN {{ident "u.name"}} END, {{type "u.type" ""}}), ', ' ORDER BY u.i)
    FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes, p.proargnames) WITH ORDINALITY u(type, mode, name, i)),
  '~arguments', pg_get_function_arguments(p.oid),
  'result', CASE WHEN p.proretset THEN 'setof ' ELSE '' END || {{type "p.prorettype" ""}},
  '~result', pg_get_function_result(p.oid),
  'language', {{ident "l.lanname"}},
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
  'settings', {{settings "p.proconfig"}},
  'support', {{if since 12}}{{proc "p.prosupport"}}{{else}}NULL{{end}},
  'transforms', (SELECT string_agg({{type "t" ""}}, ', ' ORDER BY {{type "t" ""}} COLLATE "C") FROM unnest(p.protrftypes) t),
  'aggregate', {{if .aggregate}}CASE WHEN p.prokind = 'a' THEN (
    SELECT concat_ws(', ', 'kind ' || a.aggkind::text || a.aggnumdirectargs, 'sfunc ' || {{proc "a.aggtransfn"}}, 'stype ' || {{type "a.aggtranstype" ""}}, 'sspace ' || a.aggtransspace,
      'finalfunc ' || {{proc "a.aggfinalfn"}}, 'extra ' || a.aggfinalextra, 'modify ' || a.aggfinalmodify::text, 'combinefunc ' || {{proc "a.aggcombinefn"}},
      'serialfunc ' || {{proc "a.aggserialfn"}}, 'deserialfunc ' || {{proc "a.aggdeserialfn"}}, 'msfunc ' || {{proc "a.aggmtransfn"}}, 'minvfunc ' || {{proc "a.aggminvtransfn"}},
      'mfinalfunc ' || {{proc "a.aggmfinalfn"}}, 'mextra ' || a.aggmfinalextra, 'mmodify ' || a.aggmfinalmodify::text, 'mstype ' || {{type "a.aggmtranstype" ""}}, 'msspace ' || a.aggmtransspace,
      'sortop ' || {{oper "a.aggsortop"}}, 'initcond ' || a.agginitval, 'minitcond ' || a.aggminitval)
    FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END{{else}}NULL{{end}}]
  -- a default is made on new in an argument of the type that new has
  || CASE WHEN p.pronargdefaults > 0 THEN (
    SELECT array_agg(y.v ORDER BY u.i, y.k) FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY u(type, i),
      LATERAL (SELECT pg_get_function_arg_default(p.oid, u.i::int) AS value) x,
      LATERAL (VALUES (1, 'default ' || u.i), (2, x.value), (3, '~default ' || u.i), (4, format_type(u.type, NULL))) y(k, v) WHERE x.value IS NOT NULL) END AS properties
FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
  -- the constructors of range types come and go with their type
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
