package schema

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"
)

func (c *carrier) carryDatabases() {
	for _, d := range c.from.Databases {
		have := find(c.to.Databases, func(o Database) bool { return o.Name == d.Name })
		if have == nil {
			c.createDatabase(d)
			have = &Database{
				Owner: d.Owner, Limit: d.Limit, Tablespace: d.Tablespace, Privileges: defaultPrivileges(d.Owner), Template: d.Template,
			}
		} else {
			c.compareLocale(d, *have)
		}
		c.alterDatabase(d, *have)
	}
}

func (c *carrier) createDatabase(d Database) {
	if d.Provider != "c" && c.to.Version < 150000 {
		c.problem(Problem{ID: "database-locale", Object: d.Name, Says: fmt.Sprintf("database %s has a locale of ICU, which new does not know for databases", Name(d.Name)), Blocks: true})
	}
	undo := "DROP DATABASE IF EXISTS " + pg.Ident(d.Name)
	if c.to.Version >= 130000 {
		undo += " WITH (FORCE)"
	}
	c.do("database "+d.Name, c.to.create(d), undo).Creates = true
}

// create is the statement that makes d on this cluster: from template0, because
// only that one may have another encoding and locale, and because it has
// nothing of its own.
func (s *Shared) create(d Database) string {
	sql := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 OWNER %s ENCODING %s", pg.Ident(d.Name), pg.Ident(d.Owner), pg.Literal(d.Encoding))
	if s.Version >= 150000 {
		sql += " LOCALE_PROVIDER " + map[string]string{"c": "libc", "i": "icu", "b": "builtin"}[d.Provider]
	}
	sql += fmt.Sprintf(" LC_COLLATE %s LC_CTYPE %s", pg.Literal(d.Collate), pg.Literal(d.CType))
	switch d.Provider {
	case "i":
		sql += " ICU_LOCALE " + pg.Literal(d.Locale)
		if d.Rules != "" {
			sql += " ICU_RULES " + pg.Literal(d.Rules)
		}
	case "b":
		sql += " BUILTIN_LOCALE " + pg.Literal(d.Locale)
	}
	if d.Tablespace != "" && slices.Contains(s.Tablespaces, d.Tablespace) {
		sql += " TABLESPACE " + pg.Ident(d.Tablespace)
	}
	if d.Limit != -1 {
		sql += fmt.Sprintf(" CONNECTION LIMIT %d", d.Limit)
	}
	if d.Template {
		sql += " IS_TEMPLATE true"
	}
	return sql
}

func (c *carrier) compareLocale(d, have Database) {
	differs := func(what, want, got string) {
		if want != got {
			c.problem(Problem{
				ID: "database-locale", Object: d.Name, Blocks: true,
				Says: fmt.Sprintf("database %s is on new already, but its %s is %q there and %q on old", Name(d.Name), what, got, want),
				Fix:  fmt.Sprintf("drop it on new: DROP DATABASE %s", pg.Ident(d.Name)),
			})
		}
	}
	differs("encoding", d.Encoding, have.Encoding)
	differs("LC_COLLATE", d.Collate, have.Collate)
	differs("LC_CTYPE", d.CType, have.CType)
	differs("locale provider", d.Provider, have.Provider)
	differs("locale", d.Locale, have.Locale)
}

func defaultPrivileges(owner string) []DatabasePrivilege {
	return []DatabasePrivilege{
		{"", "CONNECT", false},
		{"", "TEMPORARY", false},
		{owner, "CONNECT", false},
		{owner, "CREATE", false},
		{owner, "TEMPORARY", false},
	}
}

// alterDatabase gives the database of new what old's has.
func (c *carrier) alterDatabase(d, have Database) {
	alter := "ALTER DATABASE " + pg.Ident(d.Name) + " "
	if d.Owner != have.Owner {
		c.do("database "+d.Name+" owner", alter+"OWNER TO "+pg.Ident(d.Owner), alter+"OWNER TO "+pg.Ident(have.Owner))
		for i := range have.Privileges { // the owner's privileges go over to the next
			if have.Privileges[i].Grantee == have.Owner {
				have.Privileges[i].Grantee = d.Owner
			}
		}
	}
	if d.Limit != have.Limit {
		c.do("database "+d.Name+" limit", fmt.Sprintf("%sCONNECTION LIMIT %d", alter, d.Limit), fmt.Sprintf("%sCONNECTION LIMIT %d", alter, have.Limit))
	}
	if d.Comment != have.Comment {
		c.do("database "+d.Name+" comment", commentOn("DATABASE", d.Name, d.Comment), commentOn("DATABASE", d.Name, have.Comment))
	}
	if !samePrivileges(d.Privileges, have.Privileges) {
		c.do("database "+d.Name+" privileges", privilegesSQL(d.Name, have.Privileges, d.Privileges), privilegesSQL(d.Name, d.Privileges, have.Privileges))
	}
}

func samePrivileges(a, b []DatabasePrivilege) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(p DatabasePrivilege) bool { return !slices.Contains(b, p) })
}

// privilegesSQL takes away all of what is there and grants what is wanted, in
// one message and so in one transaction.
func privilegesSQL(database string, there, wanted []DatabasePrivilege) string {
	var out []string
	on := " ON DATABASE " + pg.Ident(database)
	var seen []string
	for _, p := range there {
		if !slices.Contains(seen, p.Grantee) {
			seen = append(seen, p.Grantee)
			out = append(out, "REVOKE ALL"+on+" FROM "+granteeSQL(p.Grantee)+" CASCADE")
		}
	}
	for _, p := range wanted {
		g := "GRANT " + p.Privilege + on + " TO " + granteeSQL(p.Grantee)
		if p.Grantable {
			g += " WITH GRANT OPTION"
		}
		out = append(out, g)
	}
	return strings.Join(out, ";\n")
}

// String names the setting as a person reads it.
func (v Setting) String() string {
	switch {
	case v.Database == "" && v.Role == "":
		return v.Name + " of all roles"
	case v.Database == "":
		return v.Name + " of role " + Name(v.Role)
	case v.Role == "":
		return v.Name + " of database " + Name(v.Database)
	}
	return v.Name + " of role " + Name(v.Role) + " in database " + Name(v.Database)
}

// listSettings hold lists of names, each quoted by itself (GUC_LIST_QUOTE).
var listSettings = []string{
	"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries", "shared_preload_libraries",
	"unix_socket_directories", "output_plugin_libraries", "oauth_validator_libraries",
}

// statement is the statement that sets it, or resets it.
func (v Setting) statement(set bool) string {
	var on string
	switch {
	case v.Role == "" && v.Database == "":
		on = "ALTER ROLE ALL"
	case v.Role == "":
		on = "ALTER DATABASE " + pg.Ident(v.Database)
	case v.Database == "":
		on = "ALTER ROLE " + pg.Ident(v.Role)
	default:
		on = "ALTER ROLE " + pg.Ident(v.Role) + " IN DATABASE " + pg.Ident(v.Database)
	}
	if !set {
		return on + " RESET " + settingName(v.Name)
	}
	value := pg.Literal(v.Value)
	if slices.Contains(listSettings, strings.ToLower(v.Name)) {
		var items []string
		for _, n := range splitList(v.Value) {
			items = append(items, pg.Literal(n))
		}
		if value = strings.Join(items, ", "); value == "" {
			value = "''"
		}
	}
	return on + " SET " + settingName(v.Name) + " TO " + value
}

// settingName quotes a setting's name; the dots of custom ones stay.
func settingName(name string) string {
	if parts := strings.Split(name, "."); len(parts) > 1 {
		return pg.Ident(parts...)
	}
	return pg.Ident(name)
}

// splitList reads a list of names, quoted or not.
func splitList(list string) []string {
	var out []string
	for _, s := range statements(list) {
		for n := 0; n < len(s.tokens); n++ {
			t := s.tokens[n]
			text := t.text
			for n+1 < len(s.tokens) && !s.is(n+1, ",") { // $libdir/plugin is several tokens
				n++
				text = list[t.start:s.tokens[n].end]
			}
			out = append(out, text)
			n++
		}
	}
	return out
}

// Unlisted says whether a setting is one that every major knows and none lists
// in pg_settings.
func Unlisted(name string) bool {
	return strings.EqualFold(name, "role") || strings.EqualFold(name, "session_authorization")
}

// known says whether new knows the setting; names with a dot may be anybody's.
func (c *carrier) known(name string) bool {
	return Unlisted(name) || strings.Contains(name, ".") || c.to.Known[strings.ToLower(name)]
}

func (c *carrier) unknownSetting(name, what string) {
	c.problem(Problem{
		ID: "unknown-setting", Object: name, Says: fmt.Sprintf("new does not know the setting %s: %s is left out", name, what),
		Fix: "RESET it on old, or set what replaced it on new",
	})
}

func (c *carrier) carrySettings() {
	same := func(a, b Setting) bool {
		return a.Database == b.Database && a.Role == b.Role && strings.EqualFold(a.Name, b.Name)
	}
	for _, v := range c.from.Settings {
		have := find(c.to.Settings, func(o Setting) bool { return same(o, v) })
		if have != nil && have.Value == v.Value {
			continue
		}
		if !c.known(v.Name) {
			c.unknownSetting(v.Name, v.String())
			continue
		}
		undo := v.statement(false)
		if have != nil {
			undo = have.statement(true)
		}
		c.do("setting "+v.String(), v.statement(true), undo)
	}
}

func (c *carrier) carryLabels() {
	for _, l := range c.from.Labels {
		have := find(c.to.Labels, func(o Label) bool { return o.Type == l.Type && o.Name == l.Name && o.Provider == l.Provider })
		if have != nil && have.Label == l.Label {
			continue
		}
		sql := func(label string) string {
			return fmt.Sprintf("SECURITY LABEL FOR %s ON %s %s IS %s", pg.Ident(l.Provider), strings.ToUpper(l.Type), pg.Ident(l.Name), label)
		}
		undo := sql("NULL")
		if have != nil {
			undo = sql(pg.Literal(have.Label))
		}
		c.do("label "+l.Type+" "+l.Name, sql(pg.Literal(l.Label)), undo)
	}
}
