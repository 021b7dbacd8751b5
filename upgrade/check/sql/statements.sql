-- What pg_stat_statements has seen in this database: DDL of permanent objects,
-- and TRUNCATE; for each how often, and one of them. $1 is DDL's pattern.
SELECT coalesce(sum(calls) FILTER (WHERE ddl), 0)::bigint, coalesce((array_agg(query ORDER BY calls DESC) FILTER (WHERE ddl))[1], ''),
       coalesce(sum(calls) FILTER (WHERE truncates), 0)::bigint, coalesce((array_agg(query ORDER BY calls DESC) FILTER (WHERE truncates))[1], '')
FROM (SELECT calls, left(query, 200) AS query, query ~* $1 AND query !~* '^\s*CREATE\s+(LOCAL\s+|GLOBAL\s+)?TEMP' AS ddl, query ~* '^\s*TRUNCATE\M' AS truncates
      FROM SCHEMA.pg_stat_statements
      WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())) s
WHERE ddl OR truncates
