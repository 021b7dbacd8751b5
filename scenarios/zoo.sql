-- At least one object of every kind that PostgreSQL 11 to 18 knows: with every
-- optional part, without any, and named by words that are key words of some majors
-- only (json and system_user from 16 on, merge_action from 17 on, and of all: order).
-- A major skips what it does not know. The roles zoo_owner, zoo_user and zoo_order
-- are made first. psql and a superuser load it, into an empty database in UTF8.
\set ON_ERROR_STOP on
SELECT current_setting('server_version_num')::int >= 120000 AS since12, current_setting('server_version_num')::int >= 130000 AS since13,
       current_setting('server_version_num')::int >= 140000 AS since14, current_setting('server_version_num')::int >= 150000 AS since15,
       current_setting('server_version_num')::int >= 160000 AS since16, current_setting('server_version_num')::int >= 170000 AS since17,
       current_setting('server_version_num')::int >= 180000 AS since18 \gset
SET client_min_messages = warning;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'zoo_owner') THEN CREATE ROLE zoo_owner; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'system_user') THEN CREATE ROLE "system_user"; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'zoo_user') THEN CREATE ROLE zoo_user; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'zoo Übung"s') THEN CREATE ROLE "zoo Übung""s"; END IF;
END $$;

-- Schemas
CREATE SCHEMA "json" AUTHORIZATION zoo_owner;
CREATE SCHEMA "system_user";
CREATE SCHEMA zoo;
CREATE SCHEMA "Zoo ""q"" ü";
COMMENT ON SCHEMA "json" IS 'named by a key word';
COMMENT ON SCHEMA public IS 'not as initdb left it';
GRANT USAGE ON SCHEMA "json" TO "system_user";
GRANT ALL ON SCHEMA zoo TO zoo_user WITH GRANT OPTION;
SET SESSION AUTHORIZATION zoo_user;
GRANT USAGE ON SCHEMA zoo TO "zoo Übung""s";
RESET SESSION AUTHORIZATION;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- Extensions, what hangs on them, and privileges on what they and initdb made
CREATE EXTENSION hstore SCHEMA zoo;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION citext;
CREATE EXTENSION pg_stat_statements;
COMMENT ON EXTENSION hstore IS 'a comment of our own';
GRANT EXECUTE ON FUNCTION zoo.hstore(text, text) TO zoo_user;
REVOKE EXECUTE ON FUNCTION citext_eq(citext, citext) FROM PUBLIC;
GRANT SELECT ON pg_stat_statements TO zoo_user;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO zoo_user;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT SELECT (rolname) ON pg_authid TO zoo_user;
GRANT EXECUTE ON FUNCTION pg_read_file(text) TO zoo_user;
GRANT EXECUTE ON FUNCTION pg_stat_statements_reset(oid, oid, bigint) TO zoo_user; -- which has another argument from 1.11 on
GRANT EXECUTE ON FUNCTION pg_create_logical_replication_slot(name, name, boolean, boolean) TO zoo_user WITH GRANT OPTION; -- and from 17 on
REVOKE EXECUTE ON FUNCTION pg_sleep(double precision) FROM PUBLIC;
CREATE FUNCTION zoo.depends_on_extension() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION zoo.depends_on_extension() DEPENDS ON EXTENSION hstore;

-- Languages
CREATE FUNCTION zoo.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION zoo.inline_handler(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION zoo.validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE LANGUAGE zoo_plain HANDLER zoo.handler;
CREATE TRUSTED LANGUAGE "merge_action" HANDLER zoo.handler INLINE zoo.inline_handler VALIDATOR zoo.validator;
ALTER LANGUAGE "merge_action" OWNER TO CURRENT_USER;
GRANT USAGE ON LANGUAGE "merge_action" TO zoo_user;
COMMENT ON LANGUAGE "merge_action" IS 'x';

-- Collations
CREATE COLLATION zoo.icu_plain (provider = icu, locale = 'en_US');
CREATE COLLATION zoo.icu_keys (provider = icu, locale = '@colCaseFirst=lower;colNumeric=yes');
CREATE COLLATION zoo.icu_variant (provider = icu, locale = 'de@collation=phonebook');
CREATE COLLATION zoo.icu_bcp (provider = icu, locale = 'sv-u-co-trad');
CREATE COLLATION zoo.icu_root (provider = icu, locale = '');
CREATE COLLATION zoo.libc_same (locale = 'C');
CREATE COLLATION zoo.libc_two (lc_collate = 'C', lc_ctype = 'POSIX');
CREATE COLLATION "json"."json" FROM "C";
COMMENT ON COLLATION "json"."json" IS 'x';
ALTER COLLATION "json"."json" OWNER TO zoo_owner;
\if :since12
CREATE COLLATION zoo.icu_blunt (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
\endif
\if :since16
CREATE COLLATION zoo.icu_rules (provider = icu, locale = 'und', rules = '&V << w <<< W');
\endif
\if :since17
CREATE COLLATION zoo.builtin (provider = builtin, locale = 'C.UTF-8');
\endif

-- Types: enum, composite, domain, range, base, shell
CREATE TYPE zoo.mood AS ENUM ('sad', 'o''k', 'happy');
CREATE TYPE zoo.nobody AS ENUM ();
CREATE TYPE "json"."json" AS ENUM ('json', 'system_user');
CREATE TYPE zoo.pair AS (a int, "json" text COLLATE "C", "order" zoo.mood[]);
CREATE TYPE zoo.nothing AS ();
CREATE TYPE "system_user"."system_user" AS ("system_user" "json"."json");
CREATE DOMAIN zoo.plain_domain AS int;
CREATE DOMAIN zoo.full_domain AS varchar(20) COLLATE zoo.libc_same DEFAULT lower('X') NOT NULL CONSTRAINT short CHECK (length(VALUE) < 10) CONSTRAINT "json" CHECK (VALUE <> 'json');
CREATE DOMAIN zoo.of_domain AS zoo.full_domain DEFAULT 'z' CHECK (VALUE > 'a');
CREATE DOMAIN "json"."merge_action" AS "json"."json"[] CHECK (cardinality(VALUE) < 3);
ALTER DOMAIN zoo.plain_domain ADD CONSTRAINT later CHECK (VALUE > 0) NOT VALID;
CREATE TYPE zoo.plain_range AS RANGE (subtype = float8);
CREATE FUNCTION zoo.text_diff(text, text) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT 1.0::float8';
CREATE TYPE "json"."system_user" AS RANGE (subtype = text, subtype_opclass = text_pattern_ops, collation = "POSIX", subtype_diff = zoo.text_diff);
\if :since14
CREATE TYPE zoo.named_multi AS RANGE (subtype = int, multirange_type_name = zoo."merge_action");
\endif
CREATE TYPE zoo.shell;
CREATE TYPE zoo.base;
CREATE FUNCTION zoo.base_in(cstring) RETURNS zoo.base LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION zoo.base_out(zoo.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE zoo.base (INPUT = zoo.base_in, OUTPUT = zoo.base_out, INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4);
CREATE TYPE zoo.rich;
CREATE FUNCTION zoo.rich_in(cstring, oid, int) RETURNS zoo.rich LANGUAGE internal IMMUTABLE STRICT AS 'varcharin';
CREATE FUNCTION zoo.rich_out(zoo.rich) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'varcharout';
CREATE FUNCTION zoo.rich_recv(internal, oid, int) RETURNS zoo.rich LANGUAGE internal IMMUTABLE STRICT AS 'varcharrecv';
CREATE FUNCTION zoo.rich_send(zoo.rich) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'varcharsend';
CREATE FUNCTION zoo.rich_typmod_in(cstring[]) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'varchartypmodin';
CREATE FUNCTION zoo.rich_typmod_out(int) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'varchartypmodout';
CREATE TYPE zoo.rich (INPUT = zoo.rich_in, OUTPUT = zoo.rich_out, RECEIVE = zoo.rich_recv, SEND = zoo.rich_send, TYPMOD_IN = zoo.rich_typmod_in, TYPMOD_OUT = zoo.rich_typmod_out,
  STORAGE = extended, CATEGORY = 'S', PREFERRED = false, DELIMITER = ';', COLLATABLE = true, DEFAULT = 'a''b');
-- Statistics of a column of this type cannot be gathered: no table has one.
CREATE TYPE zoo.analyzed;
CREATE FUNCTION zoo.analyzed_in(cstring) RETURNS zoo.analyzed LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION zoo.analyzed_out(zoo.analyzed) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE FUNCTION zoo.analyzed_analyze(internal) RETURNS boolean LANGUAGE internal STRICT AS 'array_typanalyze';
CREATE TYPE zoo.analyzed (INPUT = zoo.analyzed_in, OUTPUT = zoo.analyzed_out, ANALYZE = zoo.analyzed_analyze, INTERNALLENGTH = VARIABLE, STORAGE = extended);
COMMENT ON TYPE "json"."json" IS 'x';
COMMENT ON TYPE zoo.mood IS 'x';
COMMENT ON DOMAIN zoo.full_domain IS 'x';
COMMENT ON CONSTRAINT "json" ON DOMAIN zoo.full_domain IS 'x';
COMMENT ON COLUMN zoo.pair."json" IS 'x';
ALTER TYPE "json"."json" OWNER TO zoo_owner;
GRANT USAGE ON TYPE "json"."json" TO "system_user";
REVOKE USAGE ON TYPE zoo.mood FROM PUBLIC;

-- Functions, procedures, aggregates
CREATE FUNCTION zoo.nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION "json"."json"("json" "json"."json", "system_user" text DEFAULT 'json', VARIADIC "merge_action" int[] DEFAULT ARRAY[1, 2]) RETURNS TABLE ("order" int, "json_table" text)
  LANGUAGE plpgsql STABLE STRICT LEAKPROOF SECURITY DEFINER PARALLEL SAFE COST 7 ROWS 13 SET search_path = zoo, "json" SET work_mem = '5MB' AS 'BEGIN RETURN; END';
CREATE FUNCTION zoo.outs(INOUT a numeric, OUT "json" text, IN zoo.mood) RETURNS record LANGUAGE sql AS 'SELECT 1.0, ''x''';
CREATE FUNCTION zoo.poly(anyelement, anyarray DEFAULT NULL) RETURNS SETOF anyelement LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION zoo.defaults(a date DEFAULT CURRENT_DATE, b text DEFAULT CURRENT_USER, c zoo.mood DEFAULT 'sad', d timestamptz DEFAULT now() - interval '1 day', e int DEFAULT -1) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION zoo.transformed(int) RETURNS int LANGUAGE internal IMMUTABLE AS 'int4up';
CREATE FUNCTION zoo.windowed(int) RETURNS bigint LANGUAGE internal IMMUTABLE STRICT WINDOW AS 'window_row_number';
CREATE FUNCTION zoo.trigger_function() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION zoo.event_function() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE PROCEDURE zoo.plain() LANGUAGE sql AS '';
CREATE PROCEDURE "json"."merge_action"(INOUT "json" int, "system_user" text DEFAULT 'x') LANGUAGE plpgsql SECURITY DEFINER SET work_mem = '6MB' AS 'BEGIN END';
\if :since14
CREATE PROCEDURE zoo.out_procedure(IN a int, OUT b int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION zoo.standard_body("json" int, b int DEFAULT 3) RETURNS int LANGUAGE sql RETURN "json" + b;
CREATE FUNCTION zoo.atomic_body("json" int) RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT g FROM generate_series(1, "json") g; END;
CREATE PROCEDURE zoo.atomic_procedure() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
\endif
\if :since12
CREATE FUNCTION zoo.supported(text, text) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT SUPPORT pg_catalog.texticlike_support AS 'texticlike';
\endif
ALTER FUNCTION "json"."json"("json"."json", text, int[]) OWNER TO zoo_owner;
GRANT EXECUTE ON FUNCTION "json"."json"("json"."json", text, int[]) TO zoo_user WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION zoo.nothing() FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE "json"."merge_action"(int, text) TO zoo_user;
COMMENT ON FUNCTION "json"."json"("json"."json", text, int[]) IS 'x';
COMMENT ON PROCEDURE "json"."merge_action"(int, text) IS 'x';
CREATE FUNCTION zoo.step(zoo.pair, int) RETURNS zoo.pair LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE AGGREGATE zoo.plain_aggregate(int) (SFUNC = zoo.step, STYPE = zoo.pair);
CREATE AGGREGATE zoo.star_aggregate(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE "json"."system_user"(numeric) (SFUNC = numeric_avg_accum, STYPE = internal, SSPACE = 128, FINALFUNC = numeric_avg, FINALFUNC_EXTRA = false, COMBINEFUNC = numeric_avg_combine,
  SERIALFUNC = numeric_avg_serialize, DESERIALFUNC = numeric_avg_deserialize, MSFUNC = numeric_avg_accum, MINVFUNC = numeric_accum_inv, MSTYPE = internal, MSSPACE = 128, MFINALFUNC = numeric_avg, PARALLEL = SAFE);
CREATE AGGREGATE zoo.lowest(int) (SFUNC = int4smaller, STYPE = int, SORTOP = <, COMBINEFUNC = int4smaller, PARALLEL = SAFE);
CREATE AGGREGATE zoo.ordered(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA, FINALFUNC_MODIFY = read_write);
CREATE AGGREGATE zoo.hypothetical(VARIADIC "any" ORDER BY VARIADIC "any") (SFUNC = ordered_set_transition_multi, STYPE = internal, FINALFUNC = rank_final, FINALFUNC_EXTRA, HYPOTHETICAL);
COMMENT ON AGGREGATE "json"."system_user"(numeric) IS 'x';
ALTER AGGREGATE "json"."system_user"(numeric) OWNER TO zoo_owner;
GRANT EXECUTE ON FUNCTION "json"."system_user"(numeric) TO zoo_user;

-- Operators: prefix, with all, with a shell, and a shell that is left; classes and families
CREATE FUNCTION zoo.not_equal(zoo.pair, zoo.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE FUNCTION zoo.equal(zoo.pair, zoo.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR zoo.!! (RIGHTARG = bigint, FUNCTION = int8um);
CREATE OPERATOR "json".=== (LEFTARG = zoo.pair, RIGHTARG = zoo.pair, FUNCTION = zoo.equal, COMMUTATOR = OPERATOR("json".===), NEGATOR = OPERATOR("json".<<>>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR "json".<<>> (LEFTARG = zoo.pair, RIGHTARG = zoo.pair, FUNCTION = zoo.not_equal, NEGATOR = OPERATOR("json".===));
CREATE OPERATOR zoo.@=@ (LEFTARG = zoo.pair, RIGHTARG = zoo.pair, FUNCTION = zoo.equal, COMMUTATOR = OPERATOR(zoo.@*@));
CREATE OPERATOR zoo.@~@ (LEFTARG = zoo.pair, RIGHTARG = zoo.pair, FUNCTION = zoo.not_equal, COMMUTATOR = OPERATOR(zoo.@~~@));
DROP OPERATOR zoo.@~@ (zoo.pair, zoo.pair); -- whose commutator stays, a shell
COMMENT ON OPERATOR "json".=== (zoo.pair, zoo.pair) IS 'x';
COMMENT ON OPERATOR zoo.!! (NONE, bigint) IS 'x';
ALTER OPERATOR "json".=== (zoo.pair, zoo.pair) OWNER TO zoo_owner;
CREATE OPERATOR FAMILY zoo.family USING btree;
CREATE OPERATOR FAMILY zoo.empty_family USING hash;
CREATE FUNCTION zoo.pair_compare(zoo.pair, zoo.pair) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
CREATE FUNCTION zoo.less(zoo.pair, zoo.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR zoo.<< (LEFTARG = zoo.pair, RIGHTARG = zoo.pair, FUNCTION = zoo.less);
CREATE OPERATOR zoo.== (LEFTARG = zoo.pair, RIGHTARG = zoo.pair, FUNCTION = zoo.equal);
CREATE OPERATOR CLASS "json"."system_user" FOR TYPE zoo.pair USING btree FAMILY zoo.family AS OPERATOR 1 zoo.<<, OPERATOR 3 zoo.==, FUNCTION 1 zoo.pair_compare(zoo.pair, zoo.pair);
CREATE OPERATOR CLASS zoo.down FOR TYPE int USING btree AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
CREATE OPERATOR CLASS zoo.gin_class FOR TYPE text[] USING gin AS OPERATOR 1 && (anyarray, anyarray), OPERATOR 2 @> (anyarray, anyarray), FUNCTION 1 bttextcmp(text, text),
  FUNCTION 2 ginarrayextract(anyarray, internal, internal), FUNCTION 3 ginqueryarrayextract(anyarray, internal, smallint, internal, internal, internal, internal),
  FUNCTION 4 ginarrayconsistent(internal, smallint, anyarray, int, internal, internal, internal, internal), STORAGE text;
COMMENT ON OPERATOR CLASS "json"."system_user" USING btree IS 'x';
COMMENT ON OPERATOR FAMILY zoo.family USING btree IS 'x';
ALTER OPERATOR FAMILY zoo.family USING btree OWNER TO zoo_owner;

-- Casts, transforms, conversions, access methods
CREATE FUNCTION zoo.as_int("json"."json") RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE CAST ("json"."json" AS int) WITH FUNCTION zoo.as_int("json"."json") AS ASSIGNMENT;
CREATE CAST (zoo.mood AS "json"."json") WITH INOUT AS IMPLICIT;
CREATE CAST (zoo.base AS int) WITHOUT FUNCTION;
COMMENT ON CAST ("json"."json" AS int) IS 'x';
CREATE FUNCTION zoo.to_sql(internal) RETURNS zoo.base LANGUAGE internal IMMUTABLE AS 'int4up';
CREATE FUNCTION zoo.from_sql(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS 'int4up';
CREATE TRANSFORM FOR zoo.base LANGUAGE plpgsql (FROM SQL WITH FUNCTION zoo.from_sql(internal), TO SQL WITH FUNCTION zoo.to_sql(internal));
CREATE TRANSFORM FOR zoo.mood LANGUAGE "merge_action" (FROM SQL WITH FUNCTION zoo.from_sql(internal));
COMMENT ON TRANSFORM FOR zoo.base LANGUAGE plpgsql IS 'x';
CREATE FUNCTION zoo.with_transform(zoo.base) RETURNS int TRANSFORM FOR TYPE zoo.base LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE CONVERSION zoo.plain_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE DEFAULT CONVERSION "json"."json" FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
COMMENT ON CONVERSION "json"."json" IS 'x';
CREATE ACCESS METHOD zoo_index TYPE INDEX HANDLER gisthandler;
COMMENT ON ACCESS METHOD zoo_index IS 'x';
\if :since12
CREATE ACCESS METHOD "json" TYPE TABLE HANDLER heap_tableam_handler;
\endif

-- Text search
CREATE TEXT SEARCH DICTIONARY zoo.plain_dict (TEMPLATE = pg_catalog.simple);
CREATE TEXT SEARCH DICTIONARY "json"."json" (TEMPLATE = snowball, language = 'english', stopwords = 'english');
CREATE TEXT SEARCH TEMPLATE zoo.full_template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH TEMPLATE zoo.plain_template (LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH PARSER zoo.plain_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH PARSER "json"."json" (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, HEADLINE = prsd_headline, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH CONFIGURATION zoo.plain_configuration (PARSER = pg_catalog."default");
CREATE TEXT SEARCH CONFIGURATION "json"."system_user" (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION "json"."system_user" ALTER MAPPING FOR asciiword, word WITH "json"."json", pg_catalog.simple;
COMMENT ON TEXT SEARCH CONFIGURATION "json"."system_user" IS 'x';
COMMENT ON TEXT SEARCH DICTIONARY "json"."json" IS 'x';
COMMENT ON TEXT SEARCH PARSER "json"."json" IS 'x';
COMMENT ON TEXT SEARCH TEMPLATE zoo.plain_template IS 'x';
ALTER TEXT SEARCH DICTIONARY "json"."json" OWNER TO zoo_owner;

-- Foreign data
CREATE FOREIGN DATA WRAPPER plain_wrapper;
CREATE FOREIGN DATA WRAPPER "json" HANDLER postgres_fdw_handler VALIDATOR postgres_fdw_validator;
CREATE SERVER plain_server FOREIGN DATA WRAPPER plain_wrapper;
CREATE SERVER "system_user" TYPE 'a''b' VERSION '1' FOREIGN DATA WRAPPER "json" OPTIONS (host 'nowhere', dbname 'x');
CREATE USER MAPPING FOR PUBLIC SERVER plain_server;
CREATE USER MAPPING FOR zoo_user SERVER "system_user" OPTIONS (user 'x', password 'y');
CREATE USER MAPPING FOR "system_user" SERVER plain_server OPTIONS ("json" 'x');
CREATE FOREIGN TABLE zoo.plain_foreign () SERVER plain_server;
CREATE FOREIGN TABLE "json"."json_exists" (a int NOT NULL DEFAULT 3 CHECK (a > 0), "json" text OPTIONS (column_name 'x')) SERVER "system_user" OPTIONS (table_name 'y');
GRANT USAGE ON FOREIGN DATA WRAPPER "json" TO zoo_user WITH GRANT OPTION;
GRANT USAGE ON FOREIGN SERVER "system_user" TO zoo_user;
ALTER SERVER "system_user" OWNER TO CURRENT_USER;
COMMENT ON FOREIGN DATA WRAPPER "json" IS 'x';
COMMENT ON SERVER "system_user" IS 'x';
COMMENT ON FOREIGN TABLE "json"."json_exists" IS 'x';

-- Tables, sequences
CREATE TABLE zoo.nothing_table ();
CREATE TABLE zoo.plain_table (id int PRIMARY KEY);
CREATE TABLE zoo.keys (id int PRIMARY KEY, "json" jsonb, "system_user" text, "merge_action" int, "json_table" int, "order" int DEFAULT 1);
CREATE TABLE "system_user"."json_array" (id int PRIMARY KEY, "json_array" "json"."json" DEFAULT 'json', v "system_user"."system_user", c text COLLATE "json"."json");
CREATE UNLOGGED TABLE zoo.unlogged (id int PRIMARY KEY);
CREATE TABLE zoo.full_table (
  id bigint GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 2 MINVALUE 3 MAXVALUE 1000000 CACHE 3 CYCLE) CONSTRAINT "json" PRIMARY KEY,
  by_default smallint GENERATED BY DEFAULT AS IDENTITY,
  n serial, num numeric(10, 2) DEFAULT round(1.5), vc varchar(12) NOT NULL DEFAULT 'x', bp char(3), ts timestamptz(3) DEFAULT now(), iv interval day to second(2), bt bit(4), vb bit varying(9), "char" "char",
  arr zoo.mood[] DEFAULT ARRAY['sad', 'happy']::zoo.mood[], two text[][], dom zoo.full_domain, pair zoo.pair, rng "json"."system_user", base zoo.base, rich zoo.rich(7),
  collated text COLLATE zoo.icu_plain, "json" int CONSTRAINT positive CHECK ("json" > 0), "system_user" text,
  CONSTRAINT "system_user" CHECK ("json" > 0 OR "system_user" IS NOT NULL), CONSTRAINT never CHECK (num > 0) NO INHERIT,
  CONSTRAINT "unique one" UNIQUE ("system_user"), CONSTRAINT deferred UNIQUE (vc) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT excluded EXCLUDE USING gist (int4range(n, n + 1) WITH &&) WHERE ("json" > 5),
  CONSTRAINT self FOREIGN KEY ("system_user") REFERENCES zoo.full_table ("system_user") DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, autovacuum_enabled = OFF, toast.autovacuum_vacuum_threshold = 10);
ALTER TABLE zoo.full_table ALTER COLUMN vc SET STATISTICS 77, ALTER COLUMN vc SET (n_distinct = 5), ALTER COLUMN vc SET STORAGE EXTERNAL;
ALTER TABLE zoo.full_table ADD CONSTRAINT not_valid CHECK (n > 0) NOT VALID;
ALTER TABLE zoo.full_table CLUSTER ON "json";
ALTER TABLE zoo.full_table OWNER TO zoo_owner;
GRANT SELECT, INSERT ON zoo.full_table TO zoo_user WITH GRANT OPTION;
GRANT SELECT ("json"), UPDATE ("system_user") ON zoo.full_table TO "system_user";
GRANT TRUNCATE, REFERENCES, TRIGGER ON zoo.full_table TO PUBLIC;
COMMENT ON TABLE zoo.full_table IS 'x';
COMMENT ON COLUMN zoo.full_table."json" IS 'x';
COMMENT ON CONSTRAINT "system_user" ON zoo.full_table IS 'x';
COMMENT ON CONSTRAINT "json" ON zoo.full_table IS 'x';
CREATE TABLE zoo.refers (id int PRIMARY KEY, a bigint, b text,
  CONSTRAINT "json" FOREIGN KEY (a) REFERENCES zoo.full_table ON UPDATE CASCADE ON DELETE SET NULL);
ALTER TABLE zoo.refers ADD CONSTRAINT not_valid FOREIGN KEY (b) REFERENCES zoo.full_table ("system_user") MATCH FULL NOT VALID;
\if :since12
CREATE TABLE zoo.generated (id int PRIMARY KEY, "json" int, g int GENERATED ALWAYS AS ("json" * 2) STORED, h text GENERATED ALWAYS AS (upper("json"::text)) STORED);
CREATE TABLE zoo.method (id int PRIMARY KEY) USING "json";
\endif
\if :since14
ALTER TABLE zoo.full_table ALTER COLUMN "system_user" SET COMPRESSION pglz;
\endif
\if :since15
CREATE TABLE zoo.nulls (id int PRIMARY KEY, a int UNIQUE NULLS NOT DISTINCT, b bigint REFERENCES zoo.full_table ON DELETE SET NULL (b));
\endif
\if :since18
CREATE TABLE zoo.virtual (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id * 2), CONSTRAINT not_enforced CHECK (id > 0) NOT ENFORCED);
\endif
CREATE TABLE zoo.of_type OF zoo.pair (PRIMARY KEY (a));
CREATE TABLE zoo.wide_key (a int, b int, c int, CONSTRAINT wide PRIMARY KEY (a, b) INCLUDE (c));
CREATE SEQUENCE zoo.plain_sequence;
CREATE SEQUENCE "json"."json_value" AS smallint START 7 INCREMENT -3 MINVALUE -100 MAXVALUE 50 CACHE 4 CYCLE;
CREATE SEQUENCE zoo.owned OWNED BY zoo.keys."json_table";
GRANT USAGE ON SEQUENCE "json"."json_value" TO "system_user";
COMMENT ON SEQUENCE "json"."json_value" IS 'x';

-- Replica identities
CREATE TABLE zoo.identity_full (a int, "json" text); ALTER TABLE zoo.identity_full REPLICA IDENTITY FULL;
CREATE TABLE zoo.identity_nothing (a int); ALTER TABLE zoo.identity_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE zoo.identity_index ("system_user" int NOT NULL, b int); CREATE UNIQUE INDEX "merge_action" ON zoo.identity_index ("system_user");
ALTER TABLE zoo.identity_index REPLICA IDENTITY USING INDEX "merge_action";
ALTER TABLE zoo.nothing_table REPLICA IDENTITY NOTHING;

-- Inheritance and partitions
CREATE TABLE zoo.parent (v int, "json" text DEFAULT 'p', CONSTRAINT inherited CHECK (v < 1000));
CREATE TABLE zoo.parent2 (v int, w int);
CREATE TABLE zoo.child (PRIMARY KEY (own), own int) INHERITS (zoo.parent, zoo.parent2);
INSERT INTO zoo.parent (v) SELECT generate_series(-3, 3);
ALTER TABLE zoo.parent ADD CONSTRAINT unproven CHECK (v > 0) NOT VALID;
CREATE TABLE zoo.born_valid (PRIMARY KEY (v)) INHERITS (zoo.parent);
ALTER TABLE zoo.parent REPLICA IDENTITY FULL; ALTER TABLE zoo.parent2 REPLICA IDENTITY FULL;
CREATE TABLE zoo.by_range ("system_user" int NOT NULL, "json" date NOT NULL, v text, PRIMARY KEY ("system_user", "json")) PARTITION BY RANGE ("system_user", "json");
CREATE TABLE zoo.by_range_1 PARTITION OF zoo.by_range FOR VALUES FROM (MINVALUE, MINVALUE) TO (10, '2024-01-01');
CREATE TABLE zoo.by_range_2 PARTITION OF zoo.by_range (v DEFAULT 'mine' NOT NULL) FOR VALUES FROM (10, '2024-01-01') TO (MAXVALUE, MAXVALUE) WITH (fillfactor = 80);
CREATE TABLE zoo.by_list ("json" "json"."json" NOT NULL, k int, PRIMARY KEY ("json", k)) PARTITION BY LIST ("json");
CREATE TABLE zoo.by_list_1 PARTITION OF zoo.by_list FOR VALUES IN ('json');
CREATE TABLE zoo.by_list_d PARTITION OF zoo.by_list DEFAULT PARTITION BY HASH (k);
CREATE TABLE zoo.by_list_d0 PARTITION OF zoo.by_list_d FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE zoo.by_list_d1 PARTITION OF zoo.by_list_d FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE zoo.by_expression (a text, b int NOT NULL) PARTITION BY RANGE (lower(a) COLLATE "C" text_pattern_ops, (b + 1));
CREATE TABLE zoo.by_expression_1 (b int NOT NULL, a text); ALTER TABLE zoo.by_expression ATTACH PARTITION zoo.by_expression_1 FOR VALUES FROM ('a', 0) TO ('z', 10);
ALTER TABLE zoo.by_expression_1 REPLICA IDENTITY FULL;
CREATE INDEX "system_user" ON zoo.by_range (v);
CREATE INDEX by_list_only ON ONLY zoo.by_list (k);
COMMENT ON TABLE zoo.by_range_1 IS 'x';

-- Indexes, statistics
CREATE INDEX "json_scalar" ON zoo.keys ("json_table" DESC NULLS LAST, lower("system_user") COLLATE "C" text_pattern_ops) WHERE "merge_action" > 3;
CREATE INDEX keys_gin ON zoo.keys USING gin ("json" jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX keys_brin ON zoo.keys USING brin ("order") WITH (pages_per_range = 4);
CREATE INDEX keys_hash ON zoo.keys USING hash ("system_user");
CREATE UNIQUE INDEX keys_include ON zoo.keys (id) INCLUDE ("merge_action");
CREATE INDEX keys_down ON zoo.keys (id zoo.down);
CREATE INDEX keys_expression ON zoo.keys (("order" + 1), coalesce("system_user", 'x'));
ALTER INDEX zoo.keys_expression ALTER COLUMN 1 SET STATISTICS 333;
COMMENT ON INDEX zoo."json_scalar" IS 'x';
CREATE STATISTICS zoo.plain_statistics ON id, "order" FROM zoo.keys;
CREATE STATISTICS "json"."json" (dependencies, ndistinct) ON "merge_action", "system_user" FROM zoo.keys;
COMMENT ON STATISTICS "json"."json" IS 'x';
ALTER STATISTICS "json"."json" OWNER TO zoo_owner;
\if :since13
ALTER STATISTICS "json"."json" SET STATISTICS 50;
\endif
\if :since14
CREATE STATISTICS zoo.on_expression (mcv) ON ("order" + 1), lower("system_user") FROM zoo.keys;
\endif

-- Views, materialized views, rules
CREATE VIEW zoo.plain_view AS SELECT 1 AS "json";
CREATE VIEW "json"."json_query" WITH (security_barrier) AS SELECT k.id, k."json", k."system_user", "order" AS "json_table" FROM zoo.keys k WHERE k."merge_action" IS NULL WITH LOCAL CHECK OPTION;
CREATE RECURSIVE VIEW zoo.recursive_view (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM recursive_view WHERE n < 5;
CREATE VIEW zoo.many AS SELECT t."json", count(*) FILTER (WHERE t."order" > 1) OVER (PARTITION BY t."json_table" ORDER BY t.id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS "order",
  extract(year FROM now()) AS y, CAST('x' AS varchar(5)) AS v, t."system_user" COLLATE "C" AS "system_user", CASE t.id WHEN 1 THEN 'one' ELSE NULL END AS c, (ROW(t.id, NULL, NULL)::zoo.pair).a AS r, ARRAY(SELECT 1) AS a,
  t."json" ->> 'a' AS j, current_user AS u, substring('abc' FROM 2) AS s, position('b' IN 'abc') AS p, trim(both 'x' FROM 'xax') AS tr, overlay('abc' PLACING 'x' FROM 1) AS o, now() AT TIME ZONE 'UTC' AS z,
  'json'::"json"."json" IN ('json') AS i, t.id BETWEEN 1 AND 2 AS b
  FROM zoo.keys t LEFT JOIN LATERAL (SELECT 1 AS "merge_action") l USING ("merge_action");
ALTER VIEW "json"."json_query" ALTER COLUMN id SET DEFAULT 5;
\if :since15
CREATE VIEW zoo.invoker WITH (security_invoker = true) AS SELECT * FROM zoo.keys;
\endif
CREATE MATERIALIZED VIEW zoo.filled AS SELECT k.id, k."json" FROM zoo.keys k;
CREATE UNIQUE INDEX ON zoo.filled (id);
CREATE MATERIALIZED VIEW "json"."system_user_view" WITH (fillfactor = 50) AS SELECT 1 AS "system_user" WITH NO DATA;
COMMENT ON VIEW "json"."json_query" IS 'x';
COMMENT ON COLUMN "json"."json_query"."json" IS 'x';
COMMENT ON MATERIALIZED VIEW zoo.filled IS 'x';
GRANT SELECT ON "json"."json_query" TO zoo_user;
GRANT SELECT ("json") ON zoo.plain_view TO zoo_user;
CREATE RULE "json" AS ON INSERT TO zoo.plain_view DO INSTEAD NOTHING; CREATE RULE notes AS ON UPDATE TO zoo.plain_view DO INSTEAD NOTIFY "json";
CREATE RULE "system_user" AS ON UPDATE TO zoo.keys WHERE NEW."json" IS NULL DO ALSO DELETE FROM zoo.plain_table WHERE id = NEW."order";
CREATE RULE merge_action AS ON DELETE TO zoo.plain_view DO INSTEAD (DELETE FROM zoo.keys WHERE id = OLD."json"; SELECT 1);
ALTER TABLE zoo.keys DISABLE RULE "system_user";
COMMENT ON RULE "json" ON zoo.plain_view IS 'x';

-- Triggers, event triggers, policies
CREATE TRIGGER plain_trigger BEFORE INSERT ON zoo.keys EXECUTE FUNCTION zoo.trigger_function();
CREATE TRIGGER "json" BEFORE UPDATE OF "json", "system_user" ON zoo.keys FOR EACH ROW WHEN (OLD."json" IS DISTINCT FROM NEW."json") EXECUTE FUNCTION zoo.trigger_function('json', 'b''c');
CREATE TRIGGER transition AFTER UPDATE ON zoo.keys REFERENCING OLD TABLE AS "json" NEW TABLE AS "system_user" FOR EACH STATEMENT EXECUTE FUNCTION zoo.trigger_function();
CREATE CONSTRAINT TRIGGER "system_user" AFTER INSERT ON zoo.keys FROM zoo.refers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION zoo.trigger_function();
CREATE TRIGGER instead INSTEAD OF UPDATE ON "json"."json_query" FOR EACH ROW EXECUTE FUNCTION zoo.trigger_function();
CREATE TRIGGER on_partitions AFTER INSERT ON zoo.by_range FOR EACH ROW EXECUTE FUNCTION zoo.trigger_function();
CREATE TRIGGER always BEFORE INSERT ON zoo.refers FOR EACH ROW EXECUTE FUNCTION zoo.trigger_function(); ALTER TABLE zoo.refers ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER replica BEFORE INSERT ON zoo.refers FOR EACH ROW EXECUTE FUNCTION zoo.trigger_function(); ALTER TABLE zoo.refers ENABLE REPLICA TRIGGER replica;
CREATE TRIGGER off BEFORE INSERT ON zoo.refers FOR EACH ROW EXECUTE FUNCTION zoo.trigger_function(); ALTER TABLE zoo.refers DISABLE TRIGGER off;
COMMENT ON TRIGGER "json" ON zoo.keys IS 'x';
CREATE EVENT TRIGGER "json" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION zoo.event_function();
CREATE EVENT TRIGGER zoo_plain ON sql_drop EXECUTE FUNCTION zoo.event_function(); ALTER EVENT TRIGGER zoo_plain DISABLE;
COMMENT ON EVENT TRIGGER "json" IS 'x';
CREATE POLICY plain ON zoo.keys;
CREATE POLICY "json" ON zoo.keys AS RESTRICTIVE FOR UPDATE TO "system_user", zoo_user USING ("json" IS NOT NULL AND current_user = "system_user") WITH CHECK ("merge_action" > 0);
ALTER TABLE zoo.keys ENABLE ROW LEVEL SECURITY; ALTER TABLE zoo.refers FORCE ROW LEVEL SECURITY;
COMMENT ON POLICY "json" ON zoo.keys IS 'x';

-- Default privileges
ALTER DEFAULT PRIVILEGES FOR ROLE zoo_owner IN SCHEMA "json" GRANT SELECT ON TABLES TO "system_user";
ALTER DEFAULT PRIVILEGES FOR ROLE zoo_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE zoo_owner GRANT USAGE ON SCHEMAS TO zoo_user WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE zoo_owner GRANT USAGE ON TYPES TO zoo_user;
ALTER DEFAULT PRIVILEGES FOR ROLE zoo_owner IN SCHEMA zoo GRANT USAGE ON SEQUENCES TO zoo_user;

-- Rows
SET session_replication_role = replica;
INSERT INTO zoo.plain_table SELECT generate_series(1, 100);
INSERT INTO zoo.keys (id, "json", "system_user", "merge_action") SELECT g, jsonb_build_object('n', g), 'u' || g, g % 5 FROM generate_series(1, 200) g;
INSERT INTO "system_user"."json_array" SELECT g, 'json', ROW('system_user')::"system_user"."system_user", 'c' FROM generate_series(1, 20) g;
INSERT INTO zoo.full_table (vc, arr, pair, rng, base, rich, "json", "system_user", dom) SELECT 'v' || g, '{sad}', ROW(g, 'x', '{happy}'::zoo.mood[])::zoo.pair, '[a,b)', g::text::zoo.base, 'r', g * 10, 's' || g, 'd' FROM generate_series(1, 50) g;
INSERT INTO zoo.refers (id) SELECT generate_series(1, 10);
INSERT INTO zoo.identity_full SELECT g, 'x' FROM generate_series(1, 10) g;
INSERT INTO zoo.identity_index SELECT g, g FROM generate_series(1, 10) g;
INSERT INTO zoo.child (own, v, w) SELECT g, g, g FROM generate_series(1, 10) g;
INSERT INTO zoo.born_valid (v) SELECT generate_series(1, 10);
INSERT INTO zoo.by_range SELECT g, '2023-01-01'::date + g, 'r' FROM generate_series(1, 20) g;
INSERT INTO zoo.by_list SELECT 'system_user', g FROM generate_series(1, 20) g;
INSERT INTO zoo.by_list SELECT 'json', g FROM generate_series(1, 20) g;
INSERT INTO zoo.wide_key SELECT g, g, g FROM generate_series(1, 20) g;
REFRESH MATERIALIZED VIEW zoo.filled;
RESET session_replication_role;

-- What no upgrade carries over, with comments, which stay with it
DO $$ BEGIN PERFORM lo_create(420042); END $$;
COMMENT ON LARGE OBJECT 420042 IS 'x';
CREATE PUBLICATION "json" FOR TABLE zoo.refers WITH (publish = 'insert');
COMMENT ON PUBLICATION "json" IS 'x';
