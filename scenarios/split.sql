-- Two applications in one database that share a type, a function and a sequence:
-- what each of two clusters must get, and what neither may.
CREATE TYPE public.genre AS ENUM ('heavy', 'slow', 'acoustic');
CREATE FUNCTION public.shout(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(t)';
CREATE SEQUENCE public.receipts;
CREATE SCHEMA sales;
CREATE TABLE sales.orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  receipt bigint NOT NULL DEFAULT nextval('public.receipts'),
  buyer text NOT NULL CHECK (buyer <> '')
);
CREATE TABLE sales.lines (order_id bigint REFERENCES sales.orders (id), n integer, price numeric(10, 2), PRIMARY KEY (order_id, n));
CREATE INDEX orders_buyer ON sales.orders (public.shout(buyer));
CREATE VIEW sales.totals AS SELECT order_id, sum(price) AS total FROM sales.lines GROUP BY order_id;
CREATE FUNCTION sales.cheap() RETURNS SETOF sales.lines LANGUAGE sql STABLE AS 'SELECT * FROM sales.lines WHERE price < 5';
COMMENT ON TABLE sales.orders IS 'one for each receipt';
INSERT INTO sales.orders (buyer) SELECT 'fan ' || g FROM generate_series(1, 5000) g;
INSERT INTO sales.lines SELECT id, n, n * 2.5 FROM sales.orders, generate_series(1, 3) n;
CREATE SCHEMA stock;
CREATE TABLE stock.records (id serial, kind public.genre NOT NULL DEFAULT 'heavy', title text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE stock.records_old PARTITION OF stock.records FOR VALUES FROM (0) TO (4000);
CREATE TABLE stock.records_new PARTITION OF stock.records FOR VALUES FROM (4000) TO (1000000);
CREATE TABLE stock.moves (record integer, what text);
ALTER TABLE stock.moves REPLICA IDENTITY FULL;
CREATE STATISTICS stock.titles ON id, title FROM stock.records;
CREATE MATERIALIZED VIEW stock.counted AS SELECT kind, count(*) AS records FROM stock.records GROUP BY kind;
INSERT INTO stock.records (title) SELECT 'album ' || g FROM generate_series(1, 8000) g;
INSERT INTO stock.moves SELECT 1 + g % 8000, 'arrived' FROM generate_series(1, 3000) g;
REFRESH MATERIALIZED VIEW stock.counted;
