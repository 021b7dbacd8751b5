package schema_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

func majorOf(s *pg.Server) (major int) {
	_, _ = fmt.Sscanf(s.Name, "pg%d", &major)
	return major
}

// home is a shared server seen through the database postgres.
func home(t testing.TB, major int) *pg.Server {
	t.Helper()
	s, err := pg.Parse(fmt.Sprintf("pg%d", major), cluster(t, major).Conninfo("postgres"), "")
	must(t, err)
	return s
}

func shared(t testing.TB, conn *pgx.Conn, databases ...string) *schema.Shared {
	t.Helper()
	s, err := schema.ReadShared(t.Context(), conn, databases)
	must(t, err)
	return s
}

// take executes globals, or takes them back, newest first.
func take(t testing.TB, conn *pgx.Conn, globals []schema.Global, back bool) {
	t.Helper()
	if back {
		globals = slices.Clone(globals)
		slices.Reverse(globals)
	}
	for _, g := range globals {
		e := g.Effect.Fill(g.Effect.Secrets)
		if back {
			e = g.Undo.Fill(g.Undo.Secrets)
		}
		if e.SQL != "" {
			exec(t, conn, e.SQL)
		}
	}
}

// clean undoes what a test made outside of its databases, when it has ended.
func clean(t testing.TB, sql string, majors ...int) {
	t.Helper()
	for _, major := range majors {
		if err := cluster(t, major).Exec(context.Background(), "postgres", sql); err != nil {
			t.Error(err)
		}
	}
}

func TestGlobalsAreCarriedOnce(t *testing.T) {
	for _, m := range majors {
		t.Run(fmt.Sprintf("%d to %d", m.old, m.new), func(t *testing.T) {
			db := loaded(t, m.old).Database()
			old, to := connect(t, home(t, m.old)), connect(t, home(t, m.new))
			exec(t, old, fmt.Sprintf(`ALTER DATABASE %s CONNECTION LIMIT 77; ALTER DATABASE %[1]s OWNER TO hard_owner; ALTER DATABASE %[1]s SET myapp.mode = 'x, "y"';
				ALTER DATABASE %[1]s SET default_transaction_read_only = on; ALTER ROLE hard_reader SET search_path = '';`, db))
			before := shared(t, to, db)
			g, problems, err := schema.Globals(t.Context(), old, to, []string{db})
			must(t, err)
			take(t, to, g, false)
			again, _, err := schema.Globals(t.Context(), old, to, []string{db})
			must(t, err)
			for _, x := range again {
				t.Errorf("not done: %s: %s", x.Key, x.Effect.SQL)
			}
			for _, d := range schema.Unexpected(schema.DiffShared(shared(t, old, db), shared(t, to, db))) {
				t.Error(d.Says)
			}
			if md5 := slices.ContainsFunc(problems, func(p schema.Problem) bool { return p.ID == "md5-password" && !p.Blocks }); md5 != (m.old < 14) {
				t.Errorf("problems: %v", problems)
			}
			// Logging in with the password is the proof that it was carried.
			c := cluster(t, m.new)
			var hash, want string
			must(t, to.QueryRow(t.Context(), `SELECT rolpassword FROM pg_authid WHERE rolname = 'hard_app'`).Scan(&hash))
			must(t, old.QueryRow(t.Context(), `SELECT rolpassword FROM pg_authid WHERE rolname = 'hard_app'`).Scan(&want))
			if hash != want || hash == "" {
				t.Errorf("the password of hard_app was not carried to %s", c.Name)
			}
			// No effect, and nothing that is printed of one, shows a secret.
			for _, x := range g {
				b, err := json.Marshal(x.Effect)
				must(t, err)
				undo, err := json.Marshal(x.Undo)
				must(t, err)
				if text := string(b) + string(undo); strings.Contains(text, want) || strings.Contains(text, "SCRAM-SHA") {
					t.Errorf("%s shows a password", x.Key)
				}
			}
			take(t, to, g, true)
			for _, d := range schema.DiffShared(before, shared(t, to, db)) {
				t.Errorf("not taken back: %s", d.Says)
			}
		})
	}
}

func TestGlobalsSpareWhatIsThere(t *testing.T) {
	old, to := connect(t, home(t, 15)), connect(t, home(t, 18))
	exec(t, old, `
		CREATE ROLE spare_a LOGIN PASSWORD 'old'; CREATE ROLE spare_b CREATEDB CONNECTION LIMIT 5; CREATE ROLE spare_c;
		ALTER ROLE spare_a SET work_mem = '9MB'; GRANT spare_c TO spare_b WITH ADMIN OPTION`)
	exec(t, to, `
		CREATE ROLE spare_a LOGIN SUPERUSER PASSWORD 'other'; CREATE ROLE spare_b LOGIN; CREATE ROLE spare_c; CREATE ROLE spare_d;
		ALTER ROLE spare_a SET work_mem = '5MB'; ALTER ROLE spare_a SET lock_timeout = '1s'; GRANT spare_c TO spare_b`)
	t.Cleanup(func() {
		clean(t, "DROP ROLE IF EXISTS spare_a, spare_b, spare_c, spare_d", 15, 18)
	})
	before := shared(t, to)
	g, _, err := schema.Globals(t.Context(), old, to, nil)
	must(t, err)
	var got []string
	for _, x := range g {
		if strings.Contains(x.Effect.SQL, "spare_") {
			got = append(got, x.Effect.SQL)
			if x.Creates {
				t.Errorf("%s counts as created", x.Key)
			}
		}
	}
	want := []string{
		`ALTER ROLE "spare_a" PASSWORD $crossfade_password`,
		`ALTER ROLE "spare_b" CREATEDB CONNECTION LIMIT 5`,
		`GRANT "spare_c" TO "spare_b" WITH ADMIN TRUE, INHERIT TRUE, SET TRUE`,
		`ALTER ROLE "spare_a" SET "work_mem" TO '9MB'`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	take(t, to, g, false)
	for _, d := range schema.Unexpected(schema.DiffShared(shared(t, old), shared(t, to))) {
		if strings.Contains(d.Says, "spare_") {
			t.Error(d.Says)
		}
	}
	take(t, to, g, true)
	for _, d := range schema.DiffShared(before, shared(t, to)) {
		t.Errorf("not taken back: %s", d.Says)
	}
}

// The role that the tool logs in as on new is never locked out.
func TestGlobalsDoNotLockTheToolOut(t *testing.T) {
	old := connect(t, home(t, 15))
	exec(t, old, `CREATE ROLE toolrole LOGIN SUPERUSER PASSWORD 'a' CONNECTION LIMIT 1 VALID UNTIL '2001-01-01'`)
	exec(t, connect(t, home(t, 18)), `CREATE ROLE toolrole LOGIN SUPERUSER PASSWORD 'b'`)
	t.Cleanup(func() {
		clean(t, "DROP ROLE toolrole", 15, 18)
	})
	s, err := pg.Parse("pg18", cluster(t, 18).Conninfo("postgres", "user=toolrole"), "")
	must(t, err)
	conn, err := s.Connect(t.Context())
	must(t, err)
	g, problems, err := schema.Globals(t.Context(), old, conn, nil)
	must(t, err)
	must(t, conn.Close(t.Context()))
	for _, x := range g {
		if strings.Contains(x.Effect.SQL, "toolrole") {
			t.Error(x.Effect.SQL)
		}
	}
	if !slices.ContainsFunc(problems, func(p schema.Problem) bool { return p.ID == "tool-role" && p.Object == "toolrole" }) {
		t.Errorf("%v", problems)
	}
}

// From 16 on a membership has a grantor, who must have the admin option.
func TestMembershipsHaveTheirGrantors(t *testing.T) {
	old, to := connect(t, home(t, 17)), connect(t, home(t, 18))
	exec(t, old, `
		CREATE ROLE chain_role; CREATE ROLE chain_z; CREATE ROLE chain_y; CREATE ROLE chain_a; CREATE ROLE chain_super SUPERUSER;
		GRANT chain_role TO chain_z WITH ADMIN OPTION;
		GRANT chain_role TO chain_y WITH ADMIN TRUE, INHERIT FALSE GRANTED BY chain_z;
		GRANT chain_role TO chain_a WITH INHERIT FALSE, SET FALSE GRANTED BY chain_y;
		GRANT chain_role TO chain_a WITH INHERIT TRUE GRANTED BY chain_z;
		GRANT pg_read_all_data TO chain_a WITH SET FALSE`)
	t.Cleanup(func() {
		clean(t, "DROP ROLE chain_a; DROP ROLE chain_y; DROP ROLE chain_z; DROP ROLE chain_role, chain_super", 17, 18)
	})
	g, _, err := schema.Globals(t.Context(), old, to, nil)
	must(t, err)
	take(t, to, g, false)
	of := func(conn *pgx.Conn) (out []schema.Membership) {
		for _, m := range shared(t, conn).Memberships {
			if strings.HasPrefix(m.Member, "chain_") {
				out = append(out, m)
			}
		}
		return out
	}
	if want, got := of(old), of(to); len(want) != 5 || !slices.Equal(want, got) {
		t.Errorf("want %v\ngot  %v", want, got)
	}
}

func TestGlobalsNameWhatNewDoesNotKnow(t *testing.T) {
	old, to := connect(t, home(t, 13)), connect(t, home(t, 18))
	exec(t, old, `CREATE ROLE unknowing; ALTER ROLE unknowing SET operator_precedence_warning = on; ALTER ROLE unknowing SET custom.thing = '1'`)
	t.Cleanup(func() { clean(t, "DROP ROLE unknowing", 13) })
	g, problems, err := schema.Globals(t.Context(), old, to, nil)
	must(t, err)
	custom := false
	for _, x := range g {
		if strings.Contains(x.Effect.SQL, "operator_precedence_warning") {
			t.Error(x.Effect.SQL)
		}
		custom = custom || x.Effect.SQL == `ALTER ROLE "unknowing" SET "custom"."thing" TO '1'`
	}
	if !custom {
		t.Error("a setting of an extension or application is not carried")
	}
	if !slices.ContainsFunc(problems, func(p schema.Problem) bool {
		return p.ID == "unknown-setting" && p.Object == "operator_precedence_warning" && strings.Contains(p.Says, "unknowing")
	}) {
		t.Errorf("%v", problems)
	}
}

func TestDatabasesKeepTheirLocale(t *testing.T) {
	old, to := connect(t, home(t, 15)), connect(t, home(t, 18))
	exec(t, old, `CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LC_COLLATE 'C' LC_CTYPE 'C'`)
	exec(t, old, `CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' IS_TEMPLATE true`)
	exec(t, old, `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
	exec(t, to, `CREATE DATABASE latin TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'`)
	names := []string{"icu", "ascii", "latin"}
	g, problems, err := schema.Globals(t.Context(), old, to, names)
	must(t, err)
	if len(problems) == 0 || problems[0].ID != "database-locale" || !problems[0].Blocks || problems[0].Object != "latin" {
		t.Errorf("%v", problems)
	}
	take(t, to, g, false)
	for _, d := range schema.Unexpected(schema.DiffShared(shared(t, old, names...), shared(t, to, names...))) {
		if d.Kind == "database" && d.Object != "latin" {
			t.Error(d.Says)
		}
	}
	exec(t, to, `DROP DATABASE latin`)
	exec(t, to, `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
	// What the two have in them arrives byte for byte.
	for name, comment := range map[string]string{"ascii": "\xff\xfe", "latin": "grün"} {
		from, err := pg.Parse("pg15", cluster(t, 15).Conninfo(name), "")
		must(t, err)
		into, err := pg.Parse("pg18", cluster(t, 18).Conninfo(name), "")
		must(t, err)
		conn := session(t, from)
		exec(t, conn, "CREATE TABLE public.t (id int); COMMENT ON TABLE public.t IS '"+comment+"'")
		carry(t, from, into, 18)
		const q = "SELECT encode(convert_to(obj_description('public.t'::regclass), 'SQL_ASCII'), 'hex')"
		want, err := cluster(t, 15).Value(t.Context(), name, q)
		must(t, err)
		got, err := cluster(t, 18).Value(t.Context(), name, q)
		if err != nil || got != want || want == "" {
			t.Errorf("%s: %q on old, %q on new, %v", name, want, got, err)
		}
	}
}

// A role without rights to pg_authid on old makes roles without passwords, and
// says so.
func TestGlobalsWithoutPasswords(t *testing.T) {
	exec(t, connect(t, home(t, 15)), `CREATE ROLE plainrole LOGIN PASSWORD 'x'`)
	t.Cleanup(func() { clean(t, "DROP ROLE plainrole", 15) })
	s, err := pg.Parse("pg15", cluster(t, 15).Conninfo("postgres", "user=plainrole"), "")
	must(t, err)
	conn, err := s.Connect(t.Context())
	must(t, err)
	g, problems, err := schema.Globals(t.Context(), conn, connect(t, home(t, 18)), nil)
	must(t, err)
	must(t, conn.Close(t.Context()))
	if !slices.ContainsFunc(g, func(x schema.Global) bool { return x.Key == "role plainrole" && x.Effect.Secrets == nil && x.Creates }) {
		t.Error("the role is not made")
	}
	if !slices.ContainsFunc(problems, func(p schema.Problem) bool { return p.ID == "no-passwords" }) {
		t.Errorf("%v", problems)
	}
}

// TestLabels: security labels of roles and databases are read by the names that the
// catalogs have, whatever they look like. No provider that makes any is packaged.
func TestLabels(t *testing.T) {
	const name, role = `Hall "7"`, `Usher of Hall`
	clean(t, "DROP DATABASE IF EXISTS "+pg.Ident(name), 15)
	clean(t, "DROP ROLE IF EXISTS "+pg.Ident(role), 15)
	conn, err := home(t, 15).Connect(t.Context())
	must(t, err)
	defer pg.Leave(conn)
	exec(t, conn, "CREATE ROLE "+pg.Ident(role))
	exec(t, conn, "CREATE DATABASE "+pg.Ident(name))
	exec(t, conn, "BEGIN; SET LOCAL allow_system_table_mods = on")
	exec(t, conn, "INSERT INTO pg_shseclabel SELECT oid, 'pg_database'::regclass, 'usher', 'row 1' FROM pg_database WHERE datname = "+pg.Literal(name))
	exec(t, conn, "INSERT INTO pg_shseclabel SELECT oid, 'pg_authid'::regclass, 'usher', 'row 2' FROM pg_roles WHERE rolname = "+pg.Literal(role))
	have := shared(t, conn, name).Labels
	exec(t, conn, "ROLLBACK")
	if want := []schema.Label{{"database", name, "usher", "row 1"}, {"role", role, "usher", "row 2"}}; !slices.Equal(have, want) {
		t.Errorf("labels %q, want %q", have, want)
	}
}
