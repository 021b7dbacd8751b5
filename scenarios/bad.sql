-- A database in which nearly everything stands in the way of an upgrade. The
-- checks that each line is for are named in front of it.
SET synchronous_commit = local;

-- replica-identity
CREATE TABLE plain (a int);
CREATE TABLE late (a int PRIMARY KEY DEFERRABLE);
CREATE TABLE nullable (a int UNIQUE);
CREATE TABLE expression (a text NOT NULL);
CREATE UNIQUE INDEX expression_lower ON expression (lower(a));
CREATE TABLE candidate (a int NOT NULL, b int);
CREATE UNIQUE INDEX candidate_a ON candidate (a);
CREATE TABLE nothing (a int PRIMARY KEY);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE documents (j json);
-- replica-identity-equality
CREATE TABLE js (a int, j json);
ALTER TABLE js REPLICA IDENTITY FULL;
-- replica-identity-full
CREATE TABLE "Full" (a int);
ALTER TABLE "Full" REPLICA IDENTITY FULL;
INSERT INTO "Full" SELECT generate_series(1, 20000);
ANALYZE "Full";
UPDATE "Full" SET a = a WHERE a = 7;
-- identity-order
CREATE TABLE ordered (a int NOT NULL);
CREATE UNIQUE INDEX ordered_part ON ordered (a) WHERE a > 0;

-- excluded-tables, foreign-key-excluded, foreign-key-sets, truncate-cascade
CREATE TABLE left_behind (id int PRIMARY KEY);
CREATE TABLE refers (id int PRIMARY KEY, gone int REFERENCES left_behind);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
-- foreign-key-disabled
CREATE TABLE lax (id int PRIMARY KEY, parent int CONSTRAINT lax_parent REFERENCES child);
ALTER TABLE lax DISABLE TRIGGER ALL;

-- lock-table: more than new can lock at once
CREATE SCHEMA many;
DO $do$ BEGIN
  FOR i IN 1..320 LOOP
    EXECUTE format('CREATE TABLE many.%I (id int PRIMARY KEY)', 'table_' || i);
    COMMIT;
  END LOOP;
END $do$;

-- unlogged (accepted in the runbook: cache), large-objects, temporary-tables need a session
CREATE UNLOGGED TABLE cache (id int PRIMARY KEY);
CREATE UNLOGGED TABLE sessions (id int PRIMARY KEY);
CREATE TABLE pictures (id int PRIMARY KEY, picture oid);
INSERT INTO pictures SELECT 1, lo_create(0);

-- extension-missing, extension-version, extension-workers, extension-tables,
-- extension-needs-preload; pg_partman and pg_cron are not installed here, and
-- their rows are all of them
CREATE EXTENSION adminpack;
CREATE EXTENSION hstore VERSION '1.4';
CREATE EXTENSION pg_trgm;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
  VALUES (90001, 'pg_partman', 10, 'public'::regnamespace, true, '4.7'), (90002, 'pg_cron', 10, 'public'::regnamespace, true, '1.6');
CREATE TABLE part_config (parent text PRIMARY KEY);
ALTER EXTENSION pg_partman ADD TABLE part_config;
-- extension-members
CREATE TABLE added (id int PRIMARY KEY);
ALTER EXTENSION pg_trgm ADD TABLE added;
-- foreign-tables
CREATE EXTENSION postgres_fdw;
CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'localhost', dbname 'shop');
CREATE FOREIGN TABLE far (a text) SERVER here;
-- library-missing, c-functions
CREATE FUNCTION gone(text) RETURNS boolean LANGUAGE c AS '$libdir/adminpack', 'pg_file_unlink_v1_1';
CREATE FUNCTION sound(text) RETURNS text LANGUAGE c AS '$libdir/fuzzystrmatch', 'soundex';

-- materialized-views
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one;
-- removed-columns, removed-functions, removed-in-bodies
CREATE VIEW written AS SELECT buffers_backend FROM pg_stat_bgwriter;
CREATE VIEW timed AS SELECT pg_stat_get_bgwriter_timed_checkpoints() AS n;
CREATE FUNCTION checkpointing() RETURNS float8 LANGUAGE sql AS 'SELECT pg_stat_get_checkpoint_write_time()';

-- triggers-on-apply, event-triggers, name-collision
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER always BEFORE INSERT ON candidate FOR EACH ROW EXECUTE FUNCTION noop();
ALTER TABLE candidate ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER crossfade_fence BEFORE INSERT ON candidate FOR EACH ROW EXECUTE FUNCTION noop();
CREATE RULE quiet AS ON DELETE TO candidate DO INSTEAD NOTHING;
ALTER TABLE candidate ENABLE REPLICA RULE quiet;
CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION ddl();
-- unqualified-names
CREATE TABLE rates (currency text PRIMARY KEY, rate numeric);
CREATE FUNCTION known(currency text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM rates r WHERE r.currency = $1)';
CREATE TABLE paid (id int PRIMARY KEY, currency text CHECK (known(currency)));

-- partition-horizon, enum-hash-partitions, unlogged-partitioned
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
DO $do$ BEGIN
  FOR i IN -3..2 LOOP
    EXECUTE format('CREATE TABLE %I PARTITION OF events (PRIMARY KEY (at)) FOR VALUES FROM (%L) TO (%L)', 'events_' || i + 3, current_date + i, current_date + i + 1);
  END LOOP;
END $do$;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE moods (mood mood PRIMARY KEY) PARTITION BY HASH (mood);
CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE UNLOGGED TABLE heap_of (a int PRIMARY KEY) PARTITION BY RANGE (a);

-- collation-missing (bad_new.sql takes it from new), collation-version
CREATE TABLE sorted (id int PRIMARY KEY, name text COLLATE "de-x-icu");
UPDATE pg_collation SET collversion = '1' WHERE collname = 'de-x-icu';
-- security-labels: nothing on this server could have given it
INSERT INTO pg_seclabel VALUES ('rates'::regclass, 'pg_class'::regclass, 0, 'selinux', 'system_u:object_r:sepgsql_table_t:s0');
-- sequence-exhausted
CREATE TABLE counted (id serial PRIMARY KEY);
SELECT setval('counted_id_seq', 2147483000);
-- invalid-index
CREATE TABLE twice (a int);
INSERT INTO twice VALUES (1), (1);
\set ON_ERROR_STOP off
CREATE UNIQUE INDEX CONCURRENTLY twice_a ON twice (a);
\set ON_ERROR_STOP on
-- tablespace-missing
CREATE TABLESPACE ssd LOCATION '';
CREATE TABLE fast (id int PRIMARY KEY) TABLESPACE ssd;

-- setting-removed, read-only-override, session-replication-role, md5-passwords,
-- createrole-changed, timeouts, connection-limit, replication-manager
CREATE FUNCTION hurried() RETURNS int LANGUAGE sql SET force_parallel_mode = on AS 'SELECT 1';
ALTER ROLE app SET force_parallel_mode = on;
ALTER ROLE app SET default_transaction_read_only = off;
CREATE ROLE etl LOGIN;
ALTER ROLE etl IN DATABASE shop SET session_replication_role = replica;
GRANT SET ON PARAMETER session_replication_role TO etl;
SET password_encryption = md5;
CREATE ROLE old_timer LOGIN PASSWORD 'x';
CREATE ROLE boss CREATEROLE;
CREATE ROLE norepl LOGIN;
CREATE ROLE repmgr;
CREATE ROLE pgautofailover_monitor;
ALTER DATABASE shop SET statement_timeout = '5s';
ALTER DATABASE shop CONNECTION LIMIT 0;

-- publications, name-collision, logical-slots, output-plugin, other-upgrade,
-- slot-unused, origins-orphaned, subscriptions-on-old, check-incomplete
CREATE PUBLICATION others;
CREATE PUBLICATION cf_wacken18_shop_rest;
CREATE SCHEMA crossfade;
CREATE TABLE crossfade.upgrade (not_what_it_should_be int PRIMARY KEY);
SELECT pg_create_logical_replication_slot('debezium', 'test_decoding');
SELECT pg_create_logical_replication_slot('cf_other_shop_main', 'pgoutput');
SELECT pg_create_physical_replication_slot('repmgr_slot_7', true);
INSERT INTO pg_replication_origin VALUES (999, 'pg_99999');
SELECT pg_replication_origin_advance('pg_99999', '0/1');
CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false);
ALTER SUBSCRIPTION sub SET (slot_name = 'sub');
ALTER SUBSCRIPTION sub ENABLE;

-- template-changed
\connect template1
CREATE EXTENSION citext;
\connect shop
SET synchronous_commit = local;
-- database-left, database-invalid, locale-missing
CREATE DATABASE forgotten TEMPLATE template0;
CREATE DATABASE half TEMPLATE template0;
UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half';
CREATE DATABASE spelled TEMPLATE template0 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';

-- database-template, plpgsql-missing
ALTER DATABASE spelled IS_TEMPLATE true;
\connect spelled
SET synchronous_commit = local;
DROP EXTENSION plpgsql;
\connect shop
SET synchronous_commit = local;

-- prepared-transactions; and because it keeps vacuum back: xid-age
BEGIN;
INSERT INTO counted VALUES (1);
PREPARE TRANSACTION 'forgotten';
CREATE TEMP TABLE burnt (a int);
DO $do$ BEGIN
  FOR i IN 1..110000 LOOP
    BEGIN
      INSERT INTO burnt VALUES (1);
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END $do$;
