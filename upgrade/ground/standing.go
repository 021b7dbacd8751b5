package ground

import (
	"context"
	"encoding/json"
	"strings"

	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// What prepare makes in a database that new had before, such as postgres, cannot
// go with the database. It is what both sides have and new did not have when the
// upgrade began: row 0 remembers that as standing, the privileges on what the
// server itself brings as acl.

// standing are the objects of a database that somebody made, without those of
// extensions and the tool's own; rank is an order in which they may be dropped.
const standing = `
	WITH RECURSIVE member AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
	made AS (
	  SELECT 1 AS rank, 'pg_event_trigger'::regclass::oid AS class, oid FROM pg_event_trigger
	  UNION ALL SELECT 2, 'pg_publication'::regclass, oid FROM pg_publication WHERE pubname !~ '^c[fb]_'
	  UNION ALL SELECT 3, 'pg_extension'::regclass, oid FROM pg_extension
	  UNION ALL SELECT CASE WHEN relkind IN ('r', 'p', 'f') THEN 4 WHEN relkind = 'S' THEN 6 ELSE 5 END, 'pg_class'::regclass, oid
	    FROM pg_class WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND relpersistence <> 't'
	  UNION ALL SELECT 7, 'pg_transform'::regclass, oid FROM pg_transform
	  UNION ALL SELECT 7, 'pg_cast'::regclass, oid FROM pg_cast
	  UNION ALL SELECT 8, 'pg_opclass'::regclass, oid FROM pg_opclass
	  UNION ALL SELECT 9, 'pg_opfamily'::regclass, oid FROM pg_opfamily
	  UNION ALL SELECT 10, 'pg_operator'::regclass, oid FROM pg_operator
	  UNION ALL SELECT 11, 'pg_ts_config'::regclass, oid FROM pg_ts_config
	  UNION ALL SELECT 12, 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
	  UNION ALL SELECT 13, 'pg_ts_template'::regclass, oid FROM pg_ts_template
	  UNION ALL SELECT 13, 'pg_ts_parser'::regclass, oid FROM pg_ts_parser
	  UNION ALL SELECT 14, 'pg_conversion'::regclass, oid FROM pg_conversion
	  UNION ALL SELECT 15, 'pg_proc'::regclass, oid FROM pg_proc
	  UNION ALL SELECT 16, 'pg_type'::regclass, t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
	    WHERE t.typtype IN ('d', 'e', 'r', 'b', 'c') AND t.typcategory <> 'A' AND (c.relkind IS NULL OR c.relkind = 'c')
	  UNION ALL SELECT 17, 'pg_collation'::regclass, oid FROM pg_collation
	  UNION ALL SELECT 18, 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
	  UNION ALL SELECT 19, 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
	  UNION ALL SELECT 20, 'pg_am'::regclass, oid FROM pg_am
	  UNION ALL SELECT 21, 'pg_language'::regclass, oid FROM pg_language
	  UNION ALL SELECT 22, 'pg_namespace'::regclass, oid FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
	), standing AS MATERIALIZED (
	  SELECT m.rank, m.class, m.oid, i.type || ' ' || i.identity AS object
	  FROM made m, pg_identify_object(m.class, m.oid, 0) i
	  WHERE m.oid >= 16384 AND i.identity IS NOT NULL AND i.identity <> 'crossfade' AND i.schema IS DISTINCT FROM 'crossfade'
	    AND i.identity !~ '^crossfade_ddl' AND NOT EXISTS (SELECT FROM member e WHERE e.classid = m.class AND e.objid = m.oid)
	)`

const standingObjects = standing + `SELECT object FROM standing ORDER BY rank, 1`

// cascade is what DROP … CASCADE of the objects $1 would take, each with the
// object that it goes with: what depends on it, and what that is a part of.
const cascade = standing + `,
	cascade (root, class, oid, sub) AS (
	  SELECT object, class, oid, 0 FROM standing WHERE object = ANY ($1::text[])
	  UNION
	  SELECT c.root, d.class, d.oid, d.sub
	  FROM cascade c, LATERAL (
	    SELECT classid::oid AS class, objid AS oid, objsubid AS sub FROM pg_depend WHERE refclassid = c.class AND refobjid = c.oid AND (c.sub = 0 OR refobjsubid = c.sub)
	    UNION ALL
	    SELECT refclassid, refobjid, refobjsubid FROM pg_depend WHERE classid = c.class AND objid = c.oid AND objsubid = c.sub AND deptype IN ('i', 'e')) d
	)`

// leaning are objects outside of $1 that the DROP of one of $1 would take, whole
// or in part (a column of such a type, a default that calls such a function), each
// with that one.
const leaning = cascade + `
	SELECT c.root, string_agg(DISTINCT s.object, ', ')
	FROM (SELECT DISTINCT root, class, oid FROM cascade) c
	LEFT JOIN pg_index x ON c.class = 'pg_class'::regclass AND x.indexrelid = c.oid
	LEFT JOIN pg_constraint k ON c.class = 'pg_constraint'::regclass AND k.oid = c.oid
	LEFT JOIN pg_trigger t ON c.class = 'pg_trigger'::regclass AND t.oid = c.oid
	LEFT JOIN pg_rewrite r ON c.class = 'pg_rewrite'::regclass AND r.oid = c.oid
	LEFT JOIN pg_attrdef f ON c.class = 'pg_attrdef'::regclass AND f.oid = c.oid
	LEFT JOIN pg_policy p ON c.class = 'pg_policy'::regclass AND p.oid = c.oid
	JOIN standing s ON s.class = CASE WHEN k.contypid <> 0 THEN 'pg_type'::regclass WHEN coalesce(x.indexrelid, k.oid, t.oid, r.oid, f.oid, p.oid) IS NULL THEN c.class ELSE 'pg_class'::regclass END
	  AND s.oid = coalesce(x.indrelid, nullif(k.conrelid, 0), k.contypid, t.tgrelid, r.ev_class, f.adrelid, p.polrelid, c.oid)
	WHERE s.object <> ALL ($1::text[])
	GROUP BY 1`

// disownable are those of the roles $2 that have something somewhere, and here own
// nothing that does not go with $1.
const disownable = cascade + `
	SELECT r.rolname::text
	FROM pg_roles r
	WHERE r.rolname = ANY ($2::text[]) AND EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid)
	  AND NOT EXISTS (
	    SELECT FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid AND b.datname = current_database()
	    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'
	      AND NOT EXISTS (SELECT FROM cascade c WHERE c.class = d.classid AND c.oid = d.objid))
	ORDER BY 1`

// dropWords are the words of DROP where they are not those by which the catalogs
// call a kind of object.
var dropWords = map[string]string{
	"foreign-data wrapper": "FOREIGN DATA WRAPPER", "transform": "TRANSFORM FOR", "composite type": "TYPE",
	"procedure": "PROCEDURE", "aggregate": "AGGREGATE",
}

// dropObject is the statement that drops an object of standingObjects.
func dropObject(object string) string {
	kinds := []string{
		"event trigger", "publication", "extension", "table", "foreign table", "view", "materialized view", "sequence", "transform", "cast", "operator class", "operator family",
		"operator", "text search configuration", "text search dictionary", "text search template", "text search parser", "conversion", "function", "procedure", "aggregate",
		"composite type", "type", "collation", "server", "foreign-data wrapper", "access method", "language", "schema",
	}
	for _, kind := range kinds {
		name, ok := strings.CutPrefix(object, kind+" ")
		if !ok {
			continue
		}
		word := dropWords[kind]
		if word == "" {
			word = strings.ToUpper(kind)
		}
		if kind == "transform" {
			return "DROP TRANSFORM IF EXISTS FOR " + strings.TrimPrefix(name, "for ") + " CASCADE"
		}
		return "DROP " + word + " IF EXISTS " + name + " CASCADE"
	}
	return ""
}

// systemPrivileges are the privileges on what the server brings: what was granted
// or taken away since initdb, or would be if that had been undone. Default
// privileges are among them, with ALTER DEFAULT PRIVILEGES and a | before the kind
// of object.
const systemPrivileges = `
	SELECT x.kind || ' ' || x.name, ARRAY(SELECT a FROM unnest(x.acl) a ORDER BY a::text)::text, ARRAY(SELECT a FROM unnest(coalesce(ip.initprivs, x.own)) a ORDER BY a::text)::text
	FROM (SELECT 'ROUTINE' AS kind, oid::regprocedure::text AS name, coalesce(proacl, acldefault('f', proowner)) AS acl, acldefault('f', proowner) AS own, 'pg_proc'::regclass AS class, oid FROM pg_proc
	      UNION ALL SELECT 'TABLE', oid::regclass::text, coalesce(relacl, acldefault('r', relowner)), acldefault('r', relowner), 'pg_class'::regclass, oid FROM pg_class WHERE relkind IN ('r', 'v')
	      UNION ALL SELECT 'SCHEMA', oid::regnamespace::text, coalesce(nspacl, acldefault('n', nspowner)), acldefault('n', nspowner), 'pg_namespace'::regclass, oid FROM pg_namespace
	      UNION ALL SELECT 'LANGUAGE', quote_ident(lanname), coalesce(lanacl, acldefault('l', lanowner)), acldefault('l', lanowner), 'pg_language'::regclass, oid FROM pg_language
	      UNION ALL SELECT 'TYPE', oid::regtype::text, coalesce(typacl, acldefault('T', typowner)), acldefault('T', typowner), 'pg_type'::regclass, oid FROM pg_type WHERE typtype = 'b' AND typcategory <> 'A') x
	LEFT JOIN pg_init_privs ip ON ip.objoid = x.oid AND ip.classoid = x.class AND ip.objsubid = 0
	WHERE x.oid < 16384 AND ARRAY(SELECT a::text FROM unnest(x.acl) a ORDER BY 1) <> ARRAY(SELECT a::text FROM unnest(coalesce(ip.initprivs, x.own)) a ORDER BY 1)
	UNION ALL
	SELECT 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(pg_get_userbyid(d.defaclrole)) || coalesce(' IN SCHEMA ' || quote_ident(n.nspname), '') || '|'
	         || CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'ROUTINES' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
	       ARRAY(SELECT a FROM unnest(d.defaclacl) a ORDER BY a::text)::text,
	       CASE WHEN n.oid IS NULL THEN ARRAY(SELECT a FROM unnest(acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END::"char", d.defaclrole)) a ORDER BY a::text)::text ELSE '{}' END
	FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
	ORDER BY 1`

// stood is what a database of new held before the upgrade touched it.
type stood struct {
	Objects    []string          `json:"objects,omitempty"`
	Privileges map[string]string `json:"privileges,omitempty"` // by object, where they are not those of initdb
	Public     string            `json:"public"`               // the owner of schema public; "" where there is none
}

const stoodKey = "new/stood/"

// readStood reads what a database of a side holds now, and the privileges that
// initdb gave, by object, where they are others now.
func (gr *Ground) readStood(ctx context.Context, server *pg.Server) (s stood, initial map[string]string, err error) {
	s.Privileges, initial = map[string]string{}, map[string]string{}
	err = gr.c.Sessions.Do(ctx, server, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, standingObjects)
		if err != nil {
			return err
		}
		if s.Objects, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
		if rows, err = conn.Query(ctx, systemPrivileges); err != nil {
			return err
		}
		var object, acl, was string
		if _, err = pgx.ForEachRow(rows, []any{&object, &acl, &was}, func() error { s.Privileges[object], initial[object] = acl, was; return nil }); err != nil {
			return err
		}
		return conn.QueryRow(ctx, `SELECT coalesce((SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'public'), '')`).Scan(&s.Public)
	})
	if err != nil {
		err = &pg.Error{Doing: "read what database " + server.Database() + " holds", On: server.String(), Err: err}
	}
	return s, initial, err
}

// rememberStood adds to before what the databases hold that new has already.
func (gr *Ground) rememberStood(ctx context.Context, s *survey.Survey, before map[string]string) error {
	for _, db := range s.Databases {
		now, _, err := gr.readStood(ctx, gr.c.New.With(db.Name))
		if pg.SQLState(err) == "3D000" {
			continue
		}
		if err != nil {
			return err
		}
		b, err := json.Marshal(now)
		if err != nil {
			return err
		}
		before[stoodKey+db.Name] = string(b)
	}
	return nil
}

// stoodBefore is what a database of new held before, where it had one.
func stoodBefore(s *survey.Survey, database string) (was stood, had bool, err error) {
	text, had := s.Before(stoodKey + database)
	if had {
		err = json.Unmarshal([]byte(text), &was)
	}
	return was, had, err
}
