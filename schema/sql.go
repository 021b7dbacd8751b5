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
	"acl": aclSQL,
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
      SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END || '='
        || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type)
        || '/' || quote_ident(pg_get_userbyid(a.grantor)) AS item
      FROM aclexplode($acl) a GROUP BY a.grantee, a.grantor) x), 'none') END`)
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
