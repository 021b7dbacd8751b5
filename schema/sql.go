package schema

import (
	"embed"
	"strings"
	"sync"
	"text/template"

	"crossfade/upgrade/pg"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

var queries = template.Must(template.New("").Funcs(template.FuncMap{
	"since": func(int) bool { return false }, // replaced for each version
	"words": strings.Fields,
	// rows hashes rows by a number and by the transaction that wrote them. The
	// difference of two ages is the cheapest way from xid to a number; the mask
	// keeps it equal when one of them has wrapped around.
	"rows": func(number, alias string) string {
		return "sum(hashint8extended(" + number + ", (age('1000'::xid) - age(" + alias + ".xmin)::int8) & 4294967295))"
	},
	"acl":             aclSQL,
	"ident":           identSQL,
	"type":            typeSQL,
	"types":           typesSQL,
	"proc":            procSQL,
	"proc_with_types": procWithTypesSQL,
	"oper":            operSQL,
	"collation":       collationSQL,
	"settings":        settingsSQL,
	"sorted": func(options string) string { // an array as text, whatever its order
		return `CASE WHEN ` + options + ` IS NOT NULL THEN (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(` + options + `) o) END`
	},
}).ParseFS(sqlFiles, "sql/*.sql"))

// aclSQL writes privileges as sorted text; NULL where they are the default,
// written out or not. kind is what acldefault takes, or an expression.
func aclSQL(acl, kind, owner string) string {
	if len(kind) == 1 {
		kind = "'" + kind + "'"
	}
	return strings.NewReplacer("$acl", acl, "$default", "acldefault("+kind+", "+owner+")").Replace(
		`CASE WHEN $acl IS NOT NULL AND NOT ($acl @> $default AND $acl <@ $default) THEN coalesce((
    SELECT string_agg(x.item, ', ' ORDER BY x.item COLLATE "C") FROM (
      SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE ` + identSQL("pg_get_userbyid(a.grantee)") + ` END || '='
        || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type)
        || '/' || ` + identSQL("pg_get_userbyid(a.grantor)") + ` AS item
      FROM aclexplode($acl) a GROUP BY a.grantee, a.grantor) x), 'none') END`)
}

// What follows names things in the same way on every server: as the catalogs
// have them, quoted as Name does, never as quote_ident, format_type or a reg type
// prints them, because each major knows other key words and other names of types.
// What lies in pg_catalog has no schema in front. NULL where there is no such thing.

// identSQL is Name for one expression of type name or text.
func identSQL(x string) string {
	return `CASE WHEN ` + x + `::text ~ '^[a-z_][a-z0-9_$]*$' THEN ` + x + `::text ELSE '"' || replace(` + x + `::text, '"', '""') || '"' END`
}

// qualifiedSQL is a name in a schema.
func qualifiedSQL(namespace, name string) string {
	return `CASE ` + namespace + ` WHEN 'pg_catalog' THEN '' ELSE (` + identSQL(namespace) + `) || '.' END || ` + identSQL(name)
}

// typeSQL is the type of that OID, with mod as it is stored, which is an
// expression, or "" for none. An array is its element with [], because servers
// make up the names of array types.
func typeSQL(oid, mod string) string {
	sql := `(SELECT CASE WHEN xe.oid IS NULL THEN ` + qualifiedSQL("xn.nspname", "xt.typname") + ` ELSE ` + qualifiedSQL("xm.nspname", "xe.typname") + ` || '[]' END
    FROM pg_type xt JOIN pg_namespace xn ON xn.oid = xt.typnamespace
    LEFT JOIN (pg_type xe JOIN pg_namespace xm ON xm.oid = xe.typnamespace) ON xe.oid = xt.typelem AND xe.typarray = xt.oid WHERE xt.oid = ` + oid + `)`
	if mod != "" {
		sql = `(` + sql + ` || CASE WHEN ` + mod + ` >= 0 THEN '(' || ` + mod + ` || ')' ELSE '' END)`
	}
	return sql
}

// typesSQL are the types of an oidvector or array of OIDs, "" for none.
func typesSQL(oids string) string {
	return `coalesce((SELECT string_agg(` + typeSQL("xu.t", "") + `, ', ' ORDER BY xu.i) FROM unnest(` + oids + `::oid[]) WITH ORDINALITY xu(t, i)), '')`
}

// procSQL is a function, by its name alone where it is the server's own: majors
// change what these take.
func procSQL(oid string) string {
	return `(SELECT ` + qualifiedSQL("yn.nspname", "yp.proname") + ` || CASE yn.nspname WHEN 'pg_catalog' THEN '' ELSE '(' || ` + typesSQL("yp.proargtypes") + ` || ')' END
    FROM pg_proc yp JOIN pg_namespace yn ON yn.oid = yp.pronamespace WHERE yp.oid = ` + oid + `)`
}

// procWithTypesSQL is a function with the types that it takes.
func procWithTypesSQL(oid string) string {
	return `(SELECT ` + identSQL("yn.nspname") + ` || '.' || ` + identSQL("yp.proname") + ` || '(' || ` + typesSQL("yp.proargtypes") + ` || ')'
    FROM pg_proc yp JOIN pg_namespace yn ON yn.oid = yp.pronamespace WHERE yp.oid = ` + oid + `)`
}

// operSQL is an operator with its operands.
func operSQL(oid string) string {
	return `(SELECT CASE yn.nspname WHEN 'pg_catalog' THEN '' ELSE (` + identSQL("yn.nspname") + `) || '.' END || yo.oprname
      || '(' || coalesce(` + typeSQL("yo.oprleft", "") + `, 'none') || ', ' || coalesce(` + typeSQL("yo.oprright", "") + `, 'none') || ')'
    FROM pg_operator yo JOIN pg_namespace yn ON yn.oid = yo.oprnamespace WHERE yo.oid = ` + oid + `)`
}

func collationSQL(oid string) string {
	return `(SELECT ` + qualifiedSQL("yn.nspname", "yc.collname") + ` FROM pg_collation yc JOIN pg_namespace yn ON yn.oid = yc.collnamespace WHERE yc.oid = ` + oid + `)`
}

// settingsSQL are SET clauses as sorted text. The server quotes the names in a
// list by its own key words.
func settingsSQL(config string) string {
	return `CASE WHEN ` + config + ` IS NOT NULL THEN (
    SELECT string_agg(CASE WHEN split_part(xs, '=', 1) IN ('` + strings.Join(listSettings, "', '") + `') THEN regexp_replace(xs, '"([a-z_][a-z0-9_$]*)"', '\1', 'g') ELSE xs END, ', ' ORDER BY xs COLLATE "C")
    FROM unnest(` + config + `) xs) END`
}

// query is the catalog query of sql/<name>.sql for a server of version
// (server_version_num). In the files {{if since 14}} is what 14 and later know.
func query(name string, version int) string {
	type key struct {
		name    string
		version int
	}
	if sql, ok := made.Load(key{name, version}); ok {
		return sql.(string)
	}
	sql := queryWith(name, version, nil)
	made.Store(key{name, version}, sql)
	return sql
}

// made are the queries that were made once: some are asked for while clients wait.
var made sync.Map

// queryWith is query for a file that takes a value, its dot.
func queryWith(name string, version int, dot any) string {
	t := template.Must(queries.Clone()).Funcs(template.FuncMap{
		"since": func(major int) bool { return version >= major*10000 },
	})
	var b strings.Builder
	if err := t.ExecuteTemplate(&b, name+".sql", dot); err != nil {
		panic("schema: " + err.Error()) // the files are part of the program
	}
	return pg.Spelled(b.String(), version)
}
