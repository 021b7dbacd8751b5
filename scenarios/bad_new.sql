-- What is wrong with the server that is to take over.

-- new-not-empty, encoding
CREATE DATABASE shop TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C';
\connect shop
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
ANALYZE t;
-- event-triggers
CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER guard ON ddl_command_start EXECUTE FUNCTION guard();
ALTER EVENT TRIGGER guard ENABLE ALWAYS;
-- subscriptions-on-new
CREATE SUBSCRIPTION stranger CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false);
-- database-closed
CREATE DATABASE closed;
ALTER DATABASE closed ALLOW_CONNECTIONS false;
-- locale-missing, collation-missing
\connect postgres
DELETE FROM pg_collation WHERE collname IN ('C.utf8', 'C.UTF-8', 'de-x-icu');
-- role-has-more
CREATE ROLE app LOGIN SUPERUSER;
-- config-file: a server that runs does not mind, and one that is started does
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; echo nonsense = 1 >> postgresql.conf; echo bogus line >> pg_hba.conf';
