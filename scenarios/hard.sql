-- A database with one of everything that makes a schema hard to carry.
-- Loads with psql -v ON_ERROR_STOP=1 as a superuser into an empty database of
-- PostgreSQL 13 to 18. Roles may exist already: several databases share them.

SET client_min_messages = warning;

DO $$
DECLARE role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['hard_owner', 'hard_app', 'hard_reader', 'Hard "Quoted" Role'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I', role);
    END IF;
  END LOOP;
END $$;
ALTER ROLE hard_app LOGIN PASSWORD 'hard' CONNECTION LIMIT 50 VALID UNTIL '2099-12-31 00:00:00+00';
ALTER ROLE hard_reader LOGIN NOINHERIT;
ALTER ROLE hard_owner CREATEROLE;
GRANT hard_owner TO hard_app;
GRANT hard_app TO hard_reader WITH ADMIN OPTION;
GRANT pg_monitor TO hard_reader;
ALTER ROLE hard_app SET statement_timeout = '45s';
ALTER ROLE hard_app SET search_path = shop, "Odd Schema", public;
ALTER ROLE "Hard ""Quoted"" Role" SET application_name = 'it''s a "role"';
COMMENT ON ROLE hard_app IS 'the application''s own role';
DO $$
BEGIN
  EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '8MB');
  EXECUTE format('ALTER DATABASE %I SET search_path = public, shop', current_database());
  EXECUTE format('ALTER ROLE hard_app IN DATABASE %I SET lock_timeout = %L', current_database(), '7s');
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO hard_app', current_database());
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'hard; to carry');
END $$;

SET search_path = pg_catalog;

CREATE EXTENSION hstore WITH SCHEMA public;
CREATE SCHEMA shop AUTHORIZATION hard_owner;
CREATE SCHEMA audit;
CREATE SCHEMA "Odd Schema";
CREATE EXTENSION pg_trgm WITH SCHEMA shop;
GRANT USAGE ON SCHEMA shop, audit TO hard_app, hard_reader;
GRANT USAGE ON SCHEMA "Odd Schema" TO PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO hard_app;
COMMENT ON SCHEMA shop IS 'where the goods are';
ALTER DEFAULT PRIVILEGES FOR ROLE hard_owner IN SCHEMA shop GRANT SELECT ON TABLES TO hard_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE hard_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA audit GRANT USAGE ON SEQUENCES TO hard_app;

-- types
CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent', 'it''s back');
ALTER TYPE shop.state ADD VALUE 'packed' BEFORE 'sent';
CREATE TYPE shop.address AS (street text, "house no" integer, zip varchar(10) COLLATE "C");
CREATE TYPE shop.price_range AS RANGE (subtype = numeric);
CREATE DOMAIN shop.email AS text COLLATE "C" DEFAULT 'nobody@example.com' NOT NULL
  CONSTRAINT email_has_at CHECK (VALUE ~ '@') CONSTRAINT email_short CHECK (pg_catalog.length(VALUE) < 200);
CREATE DOMAIN shop.quantity AS integer CHECK (VALUE >= 0);
CREATE DOMAIN shop.colour AS varchar(10) DEFAULT 'red' CHECK (VALUE IN ('red', 'green'));
CREATE COLLATION shop.plain (LOCALE = 'C');
COMMENT ON TYPE shop.state IS 'of an order';
COMMENT ON DOMAIN shop.email IS 'has an @';
COMMENT ON CONSTRAINT email_has_at ON DOMAIN shop.email IS 'the @';
ALTER TYPE shop.state OWNER TO hard_owner;
GRANT USAGE ON TYPE shop.price_range TO hard_app;

-- functions; the bodies look like what a dump looks like
CREATE FUNCTION shop.add_tax(net numeric, rate numeric DEFAULT 0.21) RETURNS numeric
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT pg_catalog.round(net * (1 + rate), 2)';
CREATE FUNCTION shop.looks_like_a_dump() RETURNS text
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = shop, pg_temp SET work_mem = '4MB' COST 500 AS $fn$
BEGIN
  -- $$ and $_$ and $fn2$
  RETURN $x$
--
-- Name: orders; Type: TABLE; Schema: shop; Owner: postgres
--

\restrict aaaaaaaaaaaaaaaa
ALTER TABLE ONLY shop.orders ALTER COLUMN id SET (pg_attver=7);
SET default_tablespace = '';

--
-- Name: looks_like_a_dump(); Type: FUNCTION; Schema: shop; Owner: postgres
--
$x$;
END $fn$;
COMMENT ON FUNCTION shop.looks_like_a_dump() IS E'a comment\n--\n-- Name: orders; Type: TABLE; Schema: shop; Owner: postgres\n--\n\nwith a header';
CREATE FUNCTION shop.many(VARIADIC items integer[], OUT lowest integer, OUT highest integer) RETURNS SETOF record
  LANGUAGE sql ROWS 1 AS 'SELECT pg_catalog.min(i), pg_catalog.max(i) FROM pg_catalog.unnest(items) i';
CREATE PROCEDURE shop.nothing_much(INOUT n integer) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; END $$;
CREATE FUNCTION shop.join_text(state text, item text) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT CASE WHEN state IS NULL THEN item ELSE state || ', ' || item END $$;
CREATE AGGREGATE shop.joined(text) (SFUNC = shop.join_text, STYPE = text);
CREATE FUNCTION "Odd Schema"."Mixed Case"("an arg" integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION shop.same_price(numeric, numeric) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.abs($1 - $2) < 0.01';
CREATE OPERATOR shop.~=~ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = shop.same_price, COMMUTATOR = OPERATOR(shop.~=~));
CREATE FUNCTION shop.state_to_int(shop.state) RETURNS integer LANGUAGE sql IMMUTABLE AS
  'SELECT pg_catalog.array_position(ARRAY[''new'',''paid'',''packed'',''sent'']::text[], $1::text)';
CREATE CAST (shop.state AS integer) WITH FUNCTION shop.state_to_int(shop.state);
CREATE FUNCTION shop.int_desc(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.btint4cmp($2, $1)';
CREATE OPERATOR CLASS shop.int_desc_ops FOR TYPE integer USING btree AS
  OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 shop.int_desc(integer, integer);
ALTER FUNCTION shop.add_tax(numeric, numeric) OWNER TO hard_owner;
REVOKE EXECUTE ON FUNCTION shop.looks_like_a_dump() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shop.looks_like_a_dump() TO hard_app;
CREATE TEXT SEARCH CONFIGURATION shop.simple_english (COPY = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION shop.simple_english ALTER MAPPING FOR word WITH simple;

-- sequences: nobody's, descending, cycling, cached, set but not called, never called
CREATE SEQUENCE shop.free_seq;
CREATE SEQUENCE shop.down_seq INCREMENT -3 MINVALUE -100000 MAXVALUE -1 START -1;
CREATE SEQUENCE shop.round_seq AS smallint INCREMENT 2 MINVALUE 1 MAXVALUE 9 CYCLE;
CREATE SEQUENCE shop.set_seq START 5;
CREATE SEQUENCE shop.cached_seq CACHE 50 INCREMENT 10;
CREATE SEQUENCE "Odd Schema"."A Sequence";
DO $$ BEGIN PERFORM pg_catalog.nextval('shop.free_seq') FROM pg_catalog.generate_series(1, 123); END $$;
DO $$ BEGIN PERFORM pg_catalog.nextval('shop.down_seq') FROM pg_catalog.generate_series(1, 7); END $$;
DO $$ BEGIN PERFORM pg_catalog.nextval('shop.round_seq') FROM pg_catalog.generate_series(1, 7); END $$;
DO $$ BEGIN PERFORM pg_catalog.setval('shop.set_seq', 77, false); END $$;
DO $$ BEGIN PERFORM pg_catalog.nextval('shop.cached_seq'); END $$;
ALTER SEQUENCE shop.free_seq OWNER TO hard_owner;
GRANT USAGE, SELECT ON SEQUENCE shop.free_seq TO hard_app;
COMMENT ON SEQUENCE shop.free_seq IS 'nobody owns me';

-- tables: foreign keys in a circle, deferrable
CREATE TABLE shop.customers (
  id bigserial PRIMARY KEY,
  email shop.email,
  name text COLLATE "C" NOT NULL,
  home shop.address,
  tags text[] DEFAULT '{}'::text[] NOT NULL,
  extra jsonb DEFAULT '{"a": [1, 2]}'::jsonb,
  attributes public.hstore,
  photo bytea,
  favourite_order bigint,
  name_length integer GENERATED ALWAYS AS (pg_catalog.length(name)) STORED,
  CONSTRAINT "customers email is unique" UNIQUE (email)
);
CREATE TABLE shop.orders (
  id bigint GENERATED ALWAYS AS IDENTITY (START WITH 1000 INCREMENT BY 5 CACHE 10) PRIMARY KEY,
  customer bigint NOT NULL,
  state shop.state DEFAULT 'new'::shop.state NOT NULL,
  placed timestamp with time zone DEFAULT now() NOT NULL,
  total numeric(12,2) DEFAULT 0 NOT NULL CONSTRAINT total_positive CHECK (total >= 0),
  note text,
  channel character varying(10) DEFAULT 'web'::character varying CONSTRAINT channel_known CHECK (channel IN ('web', 'shop', 'phone')),
  replaces bigint CONSTRAINT orders_replaces_fkey REFERENCES shop.orders (id) ON DELETE SET NULL,
  CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES shop.customers (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE shop.customers ADD CONSTRAINT customers_favourite_fkey
  FOREIGN KEY (favourite_order) REFERENCES shop.orders (id) ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE;
CREATE TABLE shop.order_lines (
  "order" bigint NOT NULL REFERENCES shop.orders (id),
  line smallint NOT NULL,
  article text NOT NULL,
  amount shop.quantity DEFAULT 1,
  price numeric NOT NULL,
  gross numeric GENERATED ALWAYS AS (shop.add_tax(price)) STORED,
  PRIMARY KEY ("order", line)
);
ALTER TABLE shop.order_lines ALTER COLUMN article SET STATISTICS 500;
ALTER TABLE shop.order_lines ALTER COLUMN article SET STORAGE EXTERNAL;
ALTER TABLE shop.order_lines ALTER COLUMN article SET (n_distinct = 50);
ALTER TABLE shop.order_lines SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE shop.orders ADD CONSTRAINT note_short CHECK (pg_catalog.length(note) < 500) NOT VALID;
ALTER TABLE shop.customers OWNER TO hard_owner;
ALTER TABLE shop.orders OWNER TO hard_owner;
ALTER TABLE shop.order_lines OWNER TO hard_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.customers, shop.orders, shop.order_lines TO hard_app;
GRANT SELECT (id, name), UPDATE (name) ON shop.customers TO hard_reader;
GRANT SELECT ON shop.orders TO hard_app WITH GRANT OPTION;
SET ROLE hard_app;
GRANT SELECT ON shop.orders TO hard_reader;
RESET ROLE;
COMMENT ON TABLE shop.orders IS 'orders; Type: TABLE; Schema: nowhere';
COMMENT ON COLUMN shop.orders.note IS 'said by the customer';
COMMENT ON CONSTRAINT total_positive ON shop.orders IS 'no refunds';
COMMENT ON CONSTRAINT orders_customer_fkey ON shop.orders IS 'checked at commit';

-- identities: an index; full; nothing at all
CREATE TABLE shop.by_index (code text NOT NULL, country character(2) NOT NULL, said text);
CREATE UNIQUE INDEX by_index_key ON shop.by_index (country, code);
ALTER TABLE shop.by_index REPLICA IDENTITY USING INDEX by_index_key;
CREATE TABLE audit.log (at timestamp with time zone NOT NULL, what text, details jsonb);
ALTER TABLE audit.log REPLICA IDENTITY FULL;
CREATE TABLE audit.orders (id bigint PRIMARY KEY, seen inet DEFAULT '10.0.0.1'::inet, same_name_other_schema boolean DEFAULT true);
CREATE UNLOGGED TABLE audit.cache (key text PRIMARY KEY, value text);
CREATE TABLE audit.no_columns ();
CREATE TABLE audit.addresses OF shop.address (street NOT NULL, PRIMARY KEY ("house no", zip));
ALTER TABLE audit.no_columns REPLICA IDENTITY NOTHING;

-- names that need quoting
CREATE TABLE "Odd Schema"."select" ("from" integer PRIMARY KEY, "Mixed Case" text, "with ""quotes""" text, "a; Type: VIEW" text);
CREATE TABLE "Odd Schema"."a.b ""c""; Type: TABLE; Schema: x" (id serial PRIMARY KEY, "$1" text DEFAULT '$name');
CREATE INDEX "Odd; index" ON "Odd Schema"."select" ("Mixed Case", "with ""quotes""" DESC NULLS LAST);
COMMENT ON INDEX "Odd Schema"."Odd; index" IS 'odd';
COMMENT ON COLUMN "Odd Schema"."select"."from" IS E'two\nlines, a \\ and a ''quote''';
GRANT SELECT ON "Odd Schema"."select" TO "Hard ""Quoted"" Role";

-- partitions: range with subpartitions, list, hash, default; keys and indexes on the roots
CREATE TABLE shop.events (
  id bigint NOT NULL, at date NOT NULL, kind text NOT NULL, body text DEFAULT 'x',
  CONSTRAINT events_pkey PRIMARY KEY (id, at, kind)
) PARTITION BY RANGE (at);
CREATE TABLE shop.events_2024 PARTITION OF shop.events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE shop.events_2025 PARTITION OF shop.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (kind);
CREATE TABLE shop.events_2025_click PARTITION OF shop.events_2025 FOR VALUES IN ('click', 'tap');
CREATE TABLE shop.events_2025_rest (body text DEFAULT 'rest', kind text NOT NULL, gone integer, id bigint NOT NULL, at date NOT NULL);
ALTER TABLE shop.events_2025_rest DROP COLUMN gone;
ALTER TABLE shop.events_2025 ATTACH PARTITION shop.events_2025_rest DEFAULT;
CREATE TABLE shop.events_default PARTITION OF shop.events DEFAULT;
CREATE INDEX events_body ON shop.events (body text_pattern_ops) WHERE body <> 'x';
CREATE TABLE shop.buckets (id integer NOT NULL, payload text, customer bigint REFERENCES shop.customers (id)) PARTITION BY HASH (id);
CREATE TABLE shop.buckets_0 PARTITION OF shop.buckets FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE shop.buckets_1 PARTITION OF shop.buckets FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE shop.buckets_2 PARTITION OF shop.buckets (PRIMARY KEY (id)) FOR VALUES WITH (MODULUS 3, REMAINDER 2);
ALTER TABLE shop.buckets_0 REPLICA IDENTITY FULL;
ALTER TABLE shop.buckets_1 REPLICA IDENTITY FULL;
CREATE TABLE shop.readings (sensor integer, at timestamp with time zone, value double precision,
  PRIMARY KEY (sensor, at)) PARTITION BY RANGE (sensor, at);
CREATE TABLE shop.readings_low PARTITION OF shop.readings FOR VALUES FROM (MINVALUE, MINVALUE) TO (100, '2025-01-01 00:00:00+00');
CREATE TABLE shop.readings_high PARTITION OF shop.readings FOR VALUES FROM (100, '2025-01-01 00:00:00+00') TO (MAXVALUE, MAXVALUE);

CREATE TABLE shop.by_month (id integer NOT NULL, at timestamp without time zone NOT NULL, colour shop.colour)
  PARTITION BY RANGE (pg_catalog.date_trunc('month', at), (id % 10));
CREATE TABLE shop.by_month_1 PARTITION OF shop.by_month FOR VALUES FROM ('2024-01-01', MINVALUE) TO ('2030-01-01', 5);
ALTER TABLE shop.by_month_1 REPLICA IDENTITY FULL;

-- inheritance of the old kind
CREATE TABLE audit.base (id integer PRIMARY KEY, what text DEFAULT 'base', CHECK (id > 0));
CREATE TABLE audit.child (more text) INHERITS (audit.base);
ALTER TABLE audit.child ADD PRIMARY KEY (id);
ALTER TABLE audit.base ADD CONSTRAINT only_base CHECK (what <> 'x') NO INHERIT;
CREATE TABLE audit.keyless_child () INHERITS (audit.base);
ALTER TABLE audit.keyless_child REPLICA IDENTITY FULL;
ALTER TABLE audit.child ALTER COLUMN what SET DEFAULT 'child';

-- ranges and an exclusion constraint
CREATE TABLE shop.bookings (
  id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  during tstzrange NOT NULL,
  prices shop.price_range,
  days date[] CHECK (pg_catalog.array_length(days, 1) < 9),
  CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&) WHERE (id > 0)
);

-- indexes of every kind
CREATE INDEX customers_name_trgm ON shop.customers USING gin (name shop.gin_trgm_ops);
CREATE INDEX customers_extra ON shop.customers USING gin (extra jsonb_path_ops);
CREATE INDEX customers_lower ON shop.customers (pg_catalog.lower(name) COLLATE "C", id) INCLUDE (email);
CREATE INDEX orders_open ON shop.orders (placed DESC) WHERE state <> 'sent'::shop.state;
CREATE INDEX orders_placed_brin ON shop.orders USING brin (placed) WITH (pages_per_range = 16);
CREATE INDEX orders_customer ON shop.orders USING hash (customer);
CREATE INDEX bookings_prices ON shop.bookings USING gist (prices);
CREATE INDEX bookings_desc ON shop.bookings (id shop.int_desc_ops);
CREATE INDEX orders_channel ON shop.orders ((channel || 'x'), (shop.state_to_int(state))) WHERE channel IN ('web', 'shop');
ALTER INDEX shop.customers_lower ALTER COLUMN 1 SET STATISTICS 300;
ALTER TABLE shop.orders CLUSTER ON orders_pkey;
COMMENT ON INDEX shop.orders_open IS 'what is still to do';
CREATE STATISTICS shop.orders_correlation (dependencies, ndistinct, mcv) ON customer, state FROM shop.orders;
ALTER STATISTICS shop.orders_correlation SET STATISTICS 200;
COMMENT ON STATISTICS shop.orders_correlation IS 'they go together';

-- views, one on the other, and materialized ones
CREATE VIEW shop.open_orders WITH (security_barrier = true) AS
  SELECT o.id, o.customer, o.state, o.total FROM shop.orders o WHERE o.state <> 'sent'::shop.state WITH LOCAL CHECK OPTION;
CREATE VIEW shop.customer_totals AS
  SELECT c.id, c.name, (c.home).street AS street, coalesce_total.total
  FROM shop.customers c
  LEFT JOIN LATERAL (SELECT pg_catalog.sum(o.total) AS total FROM shop.orders o WHERE o.customer = c.id) coalesce_total ON true
  WHERE c.name LIKE 'c%' AND EXISTS (SELECT 1 FROM shop.orders o WHERE o.customer = c.id AND o.placed > '2020-01-01'::date);
CREATE VIEW shop.spelled AS
  SELECT extract(year FROM o.placed) AS year, o.placed AT TIME ZONE 'Europe/Brussels' AS here, substring(o.note from 2 for 3) AS part,
         trim(leading ' ' from o.note) AS trimmed, position('a' in o.note) AS at, row_number() OVER (PARTITION BY o.customer ORDER BY o.id) AS n,
         o.channel IN ('web', 'shop') AS known, o.total BETWEEN 1 AND 10 AS small, v.x, CASE o.state WHEN 'new' THEN 1 ELSE 2 END AS c,
         (SELECT pg_catalog.max(line) FROM shop.order_lines WHERE "order" = o.id) AS lines, o.channel LIKE ANY (ARRAY['w%', 's%']) AS l
  FROM shop.orders o, (VALUES (1, 'a'), (2, 'b')) v (x, y)
  WHERE (o.id, o.customer) NOT IN (SELECT "order", line FROM shop.order_lines) AND coalesce(o.note, '') IS NOT NULL;
-- these need the primary key, which a dump makes late
CREATE VIEW shop.per_customer AS SELECT c.id, c.name, pg_catalog.count(o.id) AS orders FROM shop.customers c LEFT JOIN shop.orders o ON o.customer = c.id GROUP BY c.id;
CREATE MATERIALIZED VIEW shop.needs_key AS SELECT c.id, c.name, pg_catalog.count(*) AS n FROM shop.customers c GROUP BY c.id;
CREATE INDEX needs_key_name ON shop.needs_key (name);
CREATE MATERIALIZED VIEW audit.above_key AS SELECT id FROM shop.needs_key WHERE n > 0;
GRANT SELECT ON shop.needs_key TO hard_reader;
COMMENT ON MATERIALIZED VIEW shop.needs_key IS 'made late';
COMMENT ON INDEX shop.needs_key_name IS 'made later';
CREATE MATERIALIZED VIEW shop.totals AS
  SELECT customer, pg_catalog.count(*) AS orders, pg_catalog.sum(total) AS total FROM shop.orders GROUP BY customer;
CREATE UNIQUE INDEX totals_customer ON shop.totals (customer);
CREATE VIEW shop.big_totals AS SELECT * FROM shop.totals WHERE total > 100;
CREATE MATERIALIZED VIEW shop.a_top AS SELECT customer, total FROM shop.big_totals ORDER BY total DESC LIMIT 10;
CREATE MATERIALIZED VIEW audit.never_filled AS SELECT 1 AS one WITH NO DATA;
CREATE RECURSIVE VIEW shop.numbers (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10;
ALTER VIEW shop.open_orders OWNER TO hard_owner;
ALTER VIEW shop.open_orders ALTER COLUMN state SET DEFAULT 'new'::shop.state;
GRANT SELECT ON shop.open_orders, shop.totals TO hard_reader;
COMMENT ON VIEW shop.open_orders IS 'still open';
COMMENT ON MATERIALIZED VIEW shop.totals IS 'refreshed at night';

-- triggers and rules
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit.log (at, what) VALUES (pg_catalog.clock_timestamp(), TG_OP || ' ' || TG_TABLE_NAME);
  RETURN NULL;
END $$;
CREATE FUNCTION audit.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER note AFTER INSERT ON shop.by_index FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE TRIGGER always BEFORE UPDATE OF said ON shop.by_index FOR EACH ROW WHEN (OLD.said IS DISTINCT FROM NEW.said) EXECUTE FUNCTION audit.nothing();
ALTER TABLE shop.by_index ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER off BEFORE DELETE ON shop.by_index FOR EACH STATEMENT EXECUTE FUNCTION audit.nothing();
ALTER TABLE shop.by_index DISABLE TRIGGER off;
CREATE TRIGGER replica AFTER DELETE ON audit.orders REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION audit.nothing();
ALTER TABLE audit.orders ENABLE REPLICA TRIGGER replica;
CREATE CONSTRAINT TRIGGER checked AFTER INSERT OR UPDATE ON shop.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.nothing();
CREATE TRIGGER on_root BEFORE INSERT ON shop.readings FOR EACH ROW EXECUTE FUNCTION audit.nothing();
CREATE TRIGGER on_events AFTER INSERT ON shop.events FOR EACH ROW EXECUTE FUNCTION audit.nothing();
ALTER TABLE shop.events_2024 DISABLE TRIGGER on_events;
CREATE TRIGGER chosen BEFORE UPDATE ON shop.orders FOR EACH ROW WHEN (NEW.channel IN ('web', 'phone')) EXECUTE FUNCTION audit.nothing('an', 'argument');
CREATE TRIGGER instead INSTEAD OF DELETE ON shop.spelled FOR EACH ROW EXECUTE FUNCTION audit.nothing();
COMMENT ON TRIGGER always ON shop.by_index IS 'also when applied';
CREATE RULE log_delete AS ON DELETE TO audit.orders DO ALSO INSERT INTO audit.log (at, what) VALUES (now(), 'rule');
CREATE RULE asks AS ON INSERT TO audit.orders WHERE EXISTS (SELECT 1 FROM shop.orders WHERE channel IN ('web', 'shop') AND orders.id = NEW.id)
  DO ALSO DELETE FROM audit.log WHERE what = 'row 99' AND at < now() AT TIME ZONE 'UTC';
CREATE RULE off AS ON UPDATE TO audit.orders WHERE OLD.id < 0 DO INSTEAD NOTHING;
ALTER TABLE audit.orders DISABLE RULE off;
COMMENT ON RULE log_delete ON audit.orders IS 'a rule';

-- row level security
ALTER TABLE shop.bookings ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.bookings FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.bookings AS PERMISSIVE FOR SELECT TO hard_app, "Hard ""Quoted"" Role" USING (id > 0);
CREATE POLICY asks ON shop.bookings FOR UPDATE USING (id IN (SELECT bookings.id FROM audit.orders o WHERE o.id = bookings.id));
CREATE POLICY narrow ON shop.bookings AS RESTRICTIVE FOR ALL TO PUBLIC USING (id < 1000000) WITH CHECK (id > 0);
COMMENT ON POLICY own ON shop.bookings IS 'a policy';

-- an event trigger that does nothing
CREATE FUNCTION audit.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER hard_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION audit.ddl();
COMMENT ON EVENT TRIGGER hard_ddl IS 'harmless';

-- foreign data, as far as it needs no other server
CREATE FOREIGN DATA WRAPPER hard_wrapper OPTIONS (debug 'true');
CREATE SERVER hard_server FOREIGN DATA WRAPPER hard_wrapper OPTIONS (host 'nowhere');
CREATE USER MAPPING FOR hard_app SERVER hard_server OPTIONS ("user" 'x', password 'y');
CREATE FOREIGN TABLE audit.far_away (id integer OPTIONS (column_name 'ID') NOT NULL, what text) SERVER hard_server OPTIONS ("table" 'far');
GRANT USAGE ON FOREIGN SERVER hard_server TO hard_app;

-- what younger majors know
DO $do$
BEGIN
  IF current_setting('server_version_num')::int >= 140000 THEN
    EXECUTE $x$ CREATE FUNCTION shop.standard_body(a varchar DEFAULT 'x', b integer DEFAULT length('ab') + 1) RETURNS integer LANGUAGE sql
      BEGIN ATOMIC; SELECT count(*) FROM shop.orders WHERE channel IN ('web', a); SELECT b + max(line) FROM shop.order_lines WHERE article <> ';'; END $x$;
    EXECUTE 'CREATE TABLE shop.younger (id integer PRIMARY KEY, spans datemultirange, packed text COMPRESSION pglz, price shop.price_multirange)';
    EXECUTE 'CREATE STATISTICS shop.on_expression ON (lower(packed)), id FROM shop.younger';
    EXECUTE $x$ INSERT INTO shop.younger SELECT i, datemultirange(daterange('2024-01-01', '2024-02-01')), repeat('x', i) FROM generate_series(1, 100) i $x$;
  END IF;
  IF current_setting('server_version_num')::int >= 150000 THEN
    EXECUTE 'CREATE UNIQUE INDEX younger_nulls ON shop.younger (packed) NULLS NOT DISTINCT';
    EXECUTE 'CREATE VIEW shop.invoked WITH (security_invoker = true) AS SELECT id FROM shop.younger';
  END IF;
  IF current_setting('server_version_num')::int >= 180000 THEN
    EXECUTE 'CREATE TABLE shop.youngest (id integer PRIMARY KEY, twice integer GENERATED ALWAYS AS (id * 2) VIRTUAL, late text)';
    EXECUTE 'ALTER TABLE shop.youngest ADD CONSTRAINT late_not_null NOT NULL late NOT VALID';
    EXECUTE 'INSERT INTO shop.youngest (id, late) SELECT i, i FROM generate_series(1, 50) i';
  END IF;
END $do$;

-- rows
SET session_replication_role = replica;
INSERT INTO shop.customers (id, email, name, home, tags, attributes, photo)
  SELECT i, 'c' || i || '@example.com', 'c' || i, ROW('street ' || i, i, 'z' || i)::shop.address, ARRAY['a' || i, NULL, 'quote " and , '],
         public.hstore('k' || i, 'v'), pg_catalog.decode(pg_catalog.md5(i::text), 'hex')
  FROM pg_catalog.generate_series(1, 1000) i;
INSERT INTO shop.orders (customer, state, placed, total, note)
  SELECT 1 + i % 1000, (ARRAY['new', 'paid', 'packed', 'sent'])[1 + i % 4]::shop.state, '2024-01-01'::timestamptz + i * interval '1 hour', i % 321, E'note\t\\' || i
  FROM pg_catalog.generate_series(1, 3000) i;
INSERT INTO shop.order_lines ("order", line, article, amount, price)
  SELECT 1000 + 5 * (i / 2), i % 2, 'article ' || i % 50, i % 7, i / 100.0 FROM pg_catalog.generate_series(0, 5999) i;
UPDATE shop.customers SET favourite_order = 1000 + 5 * id WHERE id % 3 = 0;
INSERT INTO shop.by_index SELECT 'code ' || i, (ARRAY['be', 'de', 'fr'])[1 + i % 3], 'said ' || i FROM pg_catalog.generate_series(1, 300) i;
INSERT INTO audit.log SELECT '2024-01-01'::timestamptz + i * interval '1 min', 'row ' || i % 10, pg_catalog.jsonb_build_object('n', i % 10) FROM pg_catalog.generate_series(1, 500) i;
INSERT INTO audit.orders SELECT i, '10.0.0.1'::inet + i FROM pg_catalog.generate_series(1, 200) i;
INSERT INTO audit.cache SELECT 'k' || i, 'v' FROM pg_catalog.generate_series(1, 10) i;
INSERT INTO "Odd Schema"."select" SELECT i, 'm' || i, NULL, '' FROM pg_catalog.generate_series(1, 50) i;
INSERT INTO "Odd Schema"."a.b ""c""; Type: TABLE; Schema: x" ("$1") SELECT 'row ' || i FROM pg_catalog.generate_series(1, 50) i;
INSERT INTO shop.events SELECT i, '2023-06-01'::date + i, (ARRAY['click', 'tap', 'view'])[1 + i % 3], 'body ' || i FROM pg_catalog.generate_series(1, 1200) i;
INSERT INTO shop.buckets SELECT i, 'p' || i, 1 + i % 1000 FROM pg_catalog.generate_series(1, 900) i;
INSERT INTO shop.readings SELECT i % 200, '2024-12-01'::timestamptz + i * interval '1 hour', i / 3.0 FROM pg_catalog.generate_series(1, 800) i;
INSERT INTO audit.base SELECT i, 'b' || i FROM pg_catalog.generate_series(1, 20) i;
INSERT INTO audit.child SELECT i, 'c' || i, 'more' FROM pg_catalog.generate_series(101, 120) i;
INSERT INTO shop.bookings (during, prices, days)
  SELECT tstzrange('2024-01-01'::timestamptz + i * interval '1 day', '2024-01-01'::timestamptz + i * interval '1 day' + interval '20 hours'),
         shop.price_range(i, i + 0.5), ARRAY['2024-01-01'::date + i, NULL]
  FROM pg_catalog.generate_series(1, 300) i;
DO $$ BEGIN PERFORM pg_catalog.setval('shop.customers_id_seq', 1000); END $$;
INSERT INTO shop.by_month SELECT i, '2024-01-01'::timestamp + i * interval '1 day', 'green' FROM pg_catalog.generate_series(1, 300) i;
INSERT INTO audit.keyless_child SELECT i FROM pg_catalog.generate_series(201, 210) i;
REFRESH MATERIALIZED VIEW shop.needs_key;
REFRESH MATERIALIZED VIEW audit.above_key;
REFRESH MATERIALIZED VIEW shop.totals;
REFRESH MATERIALIZED VIEW shop.a_top;
RESET session_replication_role;
RESET search_path;
