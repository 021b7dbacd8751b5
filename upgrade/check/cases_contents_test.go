package check

import (
	"errors"
	"math"
	"time"

	"crossfade/schema"
)

// without is a table with no usable identity.
func without(oid uint32, name, candidate string) schema.Table {
	t := table(oid, name)
	t.Identity = schema.Identity{Kind: 'd', Why: "it has no primary key", Candidate: candidate}
	return t
}

func full(oid uint32, name string, rows, changes int64) schema.Table {
	t := table(oid, name)
	t.Identity, t.Rows, t.Updates = schema.Identity{Kind: 'f', Usable: true}, rows, changes
	return t
}

// order is what the runbook orders for a table.
func order(f *Facts, table, what string) {
	f.Databases[0].Want.Identity = map[string]string{table: what}
}

var identityCases = []judged{
	{"replica-identity", "none", func(f *Facts) { f.table(without(2, "log", "")) }, []string{"block replica-identity old shop public.log"}},
	{"replica-identity", "a candidate", func(f *Facts) { f.table(without(2, "log", "log_key")) }, []string{"block replica-identity old shop public.log"}},
	{
		"replica-identity", "full is ordered", func(f *Facts) { f.table(without(2, "log", "")); order(f, "public.log", "full") },
		[]string{"note replica-identity-full old shop public.log"},
	},
	{"replica-identity", "an index is ordered", func(f *Facts) {
		f.table(without(2, "log", "log_key"))
		order(f, "public.log", "index:log_key")
		f.Databases[0].Indexes = []Index{{"public.log", "log_key", ""}}
	}, nil},
	{"replica-identity", "not published", func(f *Facts) {
		a, b, c := without(2, "root", ""), without(3, "ext", ""), without(4, "out", "")
		a.Kind, b.Extension, c.Excluded = 'p', "x", true
		f.table(a)
		f.table(b)
		f.table(c)
	}, []string{"note excluded-tables old shop public.out"}},
	{"replica-identity-equality", "json under FULL", func(f *Facts) {
		t := full(2, "log", 10, 0)
		t.Identity.Usable, t.Identity.Why = false, "its replica identity is FULL, and column j has type json, which has no equality"
		f.table(t)
	}, []string{"block replica-identity-equality old shop public.log"}},
	{"replica-identity-equality", "FULL is ordered over json", func(f *Facts) {
		t := without(2, "log", "")
		t.Columns = append(t.Columns, schema.Column{Name: "j", Type: "json"})
		f.table(t)
		order(f, "public.log", "full")
	}, []string{"block replica-identity-equality old shop public.log"}},
	{"replica-identity-equality", "json beside a key", func(f *Facts) {
		t := table(2, "log")
		t.Columns = append(t.Columns, schema.Column{Name: "j", Type: "json"})
		f.table(t)
	}, nil},
	{"replica-identity-full", "big and updated", func(f *Facts) { f.table(full(2, "log", 200_000, 500)) }, []string{"warn replica-identity-full old shop public.log"}},
	{"replica-identity-full", "insert only", func(f *Facts) { f.table(full(2, "log", 200_000, 0)) }, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index could serve", func(f *Facts) {
		t := full(2, "log", 200_000, 500)
		t.Identity.Candidate = "log_key"
		f.table(t)
	}, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "a key", func(f *Facts) {}, nil},
	{
		"identity-order", "no such index", func(f *Facts) { f.table(without(2, "log", "log_key")); order(f, "public.log", "index:nope") },
		[]string{"block identity-order old shop public.log"},
	},
	{"identity-order", "an index that cannot", func(f *Facts) {
		f.table(without(2, "log", ""))
		order(f, "public.log", "index:log_x")
		f.Databases[0].Indexes = []Index{{"public.log", "log_x", "it is deferrable"}}
	}, []string{"block identity-order old shop public.log"}},
	{"identity-order", "full", func(f *Facts) { order(f, "public.orders", "full") }, []string{"note replica-identity-full old shop public.orders"}},
	{"excluded-tables", "one", func(f *Facts) {
		t := table(2, "audit")
		t.Excluded = true
		f.table(t)
	}, []string{"note excluded-tables old shop public.audit"}},
	{"excluded-tables", "none", func(f *Facts) {}, nil},
	{
		"foreign-key-excluded", "parent left behind", func(f *Facts) { related(f, 1, 2, true) },
		[]string{"block foreign-key-excluded old shop public.orders", "note excluded-tables old shop public.parent"},
	},
	{"foreign-key-excluded", "child left behind", func(f *Facts) { related(f, 2, 1, true) }, []string{"note excluded-tables old shop public.parent"}},
	{"foreign-key-sets", "crossing", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
	}, []string{"warn foreign-key-sets old shop main, rest"}},
	{"foreign-key-sets", "within one", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets[0].Tables = f.Databases[0].Inventory.Tables
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest"})
	}, nil},
}

func related(f *Facts, from, to uint32, excluded bool) {
	t := table(2, "parent")
	t.Excluded = excluded
	f.table(t)
	f.Databases[0].Inventory.ForeignKeys = []schema.Edge{{From: from, To: to}}
}

var contentCases = []judged{
	{"large-objects", "some", func(f *Facts) { f.Databases[0].Inventory.LargeObjects = 3 }, []string{"block large-objects old shop"}},
	{"large-objects", "none", func(f *Facts) {}, nil},
	{"unlogged", "one", func(f *Facts) {
		t := table(2, "cache")
		t.Persistence = 'u'
		f.table(t)
	}, []string{"block unlogged old shop public.cache"}},
	{"unlogged", "excluded", func(f *Facts) {
		t := table(2, "cache")
		t.Persistence, t.Excluded = 'u', true
		f.table(t)
	}, []string{"note excluded-tables old shop public.cache"}},
	{"foreign-tables", "two of a server", func(f *Facts) {
		f.thing(Thing{Kind: "foreign-table", Name: "public.a", More: "far"}, Thing{Kind: "foreign-table", Name: "public.b", More: "far"})
	}, []string{"note foreign-tables old shop far"}},
	{"foreign-tables", "none", func(f *Facts) {}, nil},
	{"materialized-views", "filled", func(f *Facts) {
		f.Databases[0].Inventory.MaterializedViews = []schema.MaterializedView{{Schema: "public", Name: "mv", Populated: true}}
	}, []string{"note materialized-views old shop"}},
	{"materialized-views", "never filled", func(f *Facts) {
		f.Databases[0].Inventory.MaterializedViews = []schema.MaterializedView{{Schema: "public", Name: "mv"}}
	}, nil},
	{"triggers-on-apply", "always", func(f *Facts) {
		f.Databases[0].Inventory.Triggers = []schema.FiringTrigger{{Schema: "public", Table: "orders", Name: "audit", Mode: 'A'}}
		f.thing(Thing{Kind: "rule", Name: "r", Detail: "R", More: "public.orders"})
	}, []string{"note triggers-on-apply old shop public.orders.audit", "note triggers-on-apply old shop public.orders.r"}},
	{"triggers-on-apply", "ordinary ones", func(f *Facts) { f.Databases[0].Inventory.Tables[0].Triggers = 3 }, nil},
	{"event-triggers", "old's, new's", func(f *Facts) {
		f.thing(Thing{Kind: "event-trigger", Name: "log_ddl", Detail: "O", More: "log_ddl"}, Thing{Kind: "event-trigger", Name: "off", Detail: "D"})
		f.Databases[0].NewThings = []Thing{{Kind: "event-trigger", Name: "guard", Detail: "A", More: "guard"}}
	}, []string{"warn event-triggers new shop guard", "note event-triggers old shop log_ddl"}},
	{"event-triggers", "disabled", func(f *Facts) { f.thing(Thing{Kind: "event-trigger", Name: "off", Detail: "D"}) }, nil},
	{"row-security", "no superuser", func(f *Facts) {
		f.Databases[0].Inventory.Tables[0].RowSecurity = true
		f.Old.Superuser, f.Old.Role.BypassRLS = false, false
	}, []string{"block privileges old crossfade", "block row-security old shop crossfade"}},
	{"row-security", "superuser", func(f *Facts) { f.Databases[0].Inventory.Tables[0].RowSecurity = true }, nil},
	{"temporary-tables", "some", func(f *Facts) { f.thing(Thing{Kind: "temporary", N: 2}) }, []string{"note temporary-tables old shop"}},
	{"temporary-tables", "none", func(f *Facts) {}, nil},
	{
		"extension-missing", "postgis", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "postgis", Detail: "3.3"}) },
		[]string{"block extension-missing new shop postgis"},
	},
	{"extension-missing", "not known", func(f *Facts) {
		f.thing(Thing{Kind: "extension", Name: "postgis", Detail: "3.3"})
		f.New.Extensions = nil
	}, nil},
	{"extension-version", "older", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.4"}) }, []string{"note extension-version new shop hstore"}},
	{"extension-version", "the same", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"}) }, nil},
	{
		"extension-preload", "missing", func(f *Facts) {
			f.Old.set("shared_preload_libraries", "pg_stat_statements, auto_explain")
			f.New.set("shared_preload_libraries", "auto_explain")
		},
		[]string{"warn extension-preload new shared_preload_libraries"},
	},
	{"extension-preload", "there", func(f *Facts) {
		f.Old.set("shared_preload_libraries", "auto_explain")
		f.New.set("shared_preload_libraries", "auto_explain,x")
	}, nil},
	{"extension-workers", "pg_cron", func(f *Facts) {
		f.New.Extensions["pg_cron"] = Extension{Default: "1.6"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"warn extension-workers old shop pg_cron"}},
	{"extension-workers", "hstore", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"}) }, nil},
	{"extension-tables", "configuration and other", func(f *Facts) {
		a, b := table(2, "conf"), table(3, "data")
		a.Extension, a.ExtConfig, b.Extension = "hstore", true, "hstore"
		f.table(a)
		f.table(b)
		f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"})
	}, []string{"note extension-tables old shop hstore", "note extension-tables old shop hstore"}},
	{"extension-tables", "none", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"}) }, nil},
	{
		"c-functions", "a library", func(f *Facts) { f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 2}) },
		[]string{"warn c-functions old shop $libdir/mine"},
	},
	{"c-functions", "none", func(f *Facts) {}, nil},
	{"removed-types", "abstime, postfix", func(f *Facts) {
		f.thing(Thing{Kind: "removed-type", Name: "public.t", Detail: "at", More: "abstime"}, Thing{Kind: "postfix", Name: "public.!"})
	}, []string{"block removed-types old shop public.!", "block removed-types old shop public.t"}},
	{"removed-types", "none", func(f *Facts) {}, nil},
	{"table-oids", "one", func(f *Facts) { f.thing(Thing{Kind: "oids", Name: "public.t"}) }, []string{"warn table-oids old shop public.t"}},
	{"table-oids", "none", func(f *Facts) {}, nil},
	{"invalid-index", "one", func(f *Facts) { f.thing(Thing{Kind: "invalid-index", Name: "public.i", More: "public.t"}) }, []string{"warn invalid-index old shop public.i"}},
	{"invalid-index", "none", func(f *Facts) {}, nil},
	{
		"sequence-exhausted", "int4 at its end", func(f *Facts) { f.Databases[0].Inventory.Sequences = []schema.Sequence{sequence(math.MaxInt32 - 5)} },
		[]string{"warn sequence-exhausted old shop public.s"},
	},
	{"sequence-exhausted", "half way", func(f *Facts) { f.Databases[0].Inventory.Sequences = []schema.Sequence{sequence(math.MaxInt32 / 2)} }, nil},
}

func sequence(last int64) schema.Sequence {
	return schema.Sequence{Schema: "public", Name: "s", Increment: 1, Min: 1, Max: math.MaxInt32, Start: 1, Last: &last, Called: true}
}

var databaseCases = []judged{
	{
		"database-missing", "a typo", func(f *Facts) {
			f.Databases[0].Name, f.Databases[0].Old, f.Databases[0].Inventory = "Shop", nil, nil
			f.Old.Databases = f.Old.Databases[:2]
		},
		[]string{"block database-missing old Shop Shop"},
	},
	{"database-missing", "none at all", func(f *Facts) { f.Databases = nil; f.Want.AllDatabases = true }, []string{"block database-missing old"}},
	{"database-missing", "there", func(f *Facts) {}, nil},
	{"database-closed", "old", func(f *Facts) { f.Databases[0].Old.AllowsConnections = false }, []string{"block database-closed old shop shop"}},
	{"database-closed", "open", func(f *Facts) {}, nil},
	{
		"database-left", "one", func(f *Facts) {
			f.Old.Databases = append(f.Old.Databases, Catalog{Name: "other", AllowsConnections: true})
		},
		[]string{"note database-left old other other"},
	},
	{"database-left", "all are moved", func(f *Facts) {
		f.Old.Databases = append(f.Old.Databases, Catalog{Name: "other", AllowsConnections: true})
		f.Want.AllDatabases = true
	}, nil},
	{"new-not-empty", "rows", func(f *Facts) {
		f.into()
		f.Databases[0].NewThings = []Thing{{Kind: "user-table", Name: "public.t", More: "rows", N: 3}, {Kind: "user-function", Name: "public.f", N: 1}}
	}, []string{"block new-not-empty new shop shop"}},
	{"new-not-empty", "empty", func(f *Facts) {
		f.into()
		f.Databases[0].NewThings = []Thing{{Kind: "extension", Name: "hstore", Detail: "1.8", N: 1}}
	}, nil},
	{"new-not-empty", "this upgrade filled it", func(f *Facts) {
		f.into()
		f.Databases[0].NewThings = []Thing{{Kind: "user-table", Name: "public.t", More: "rows", N: 3}, {Kind: "schema", Name: "crossfade"}}
		f.Want.Ours = true
	}, nil},
	{"encoding", "LATIN1", func(f *Facts) { f.into().Encoding = "LATIN1" }, []string{"block encoding new shop shop"}},
	{"encoding", "another provider", func(f *Facts) {
		c := f.into()
		c.Provider, c.Locale, c.ActualVersion = "i", "en-US", ""
	}, []string{"block encoding new shop shop"}},
	{"encoding", "another spelling", func(f *Facts) { f.into().Collate = "en_US.utf8" }, nil},
	{"locale-missing", "not on new", func(f *Facts) {
		f.Databases[0].Old.Collate, f.Databases[0].Old.Ctype = "nl_BE.UTF-8", "nl_BE.UTF-8"
	}, []string{"block locale-missing new shop nl_BE.UTF-8"}},
	{"locale-missing", "no ICU", func(f *Facts) {
		f.Databases[0].Old.Provider, f.Databases[0].Old.Locale = "i", "nl-BE"
		f.New.Collations = f.New.Collations[:1]
	}, []string{"block locale-missing new shop nl-BE"}},
	{"locale-missing", "C", func(f *Facts) { f.Databases[0].Old.Collate, f.Databases[0].Old.Ctype = "C", "C" }, nil},
	{
		"collation-missing", "nl_BE", func(f *Facts) { f.thing(Thing{Kind: "collation", Name: "nl_BE", Detail: "c", N: 2}) },
		[]string{"block collation-missing new shop nl_BE"},
	},
	{"collation-missing", "of the user's own", func(f *Facts) {
		f.thing(Thing{Kind: "user-collation", Name: "public.dutch", Detail: "c", More: "nl_BE.UTF-8"}, Thing{Kind: "user-collation", Name: "public.eng", Detail: "c", More: "en_US.UTF-8"})
	}, []string{"block collation-missing new shop public.dutch"}},
	{"collation-missing", "there", func(f *Facts) { f.thing(Thing{Kind: "collation", Name: "en_US", Detail: "c", N: 2}) }, nil},
	{"collation-version", "another library on new", func(f *Facts) { f.New.Databases[0].ActualVersion = "2.41" }, []string{"note collation-version new shop shop"}},
	{"collation-version", "changed under old", func(f *Facts) { f.Databases[0].Old.CollationVersion = "2.31" }, []string{"warn collation-version old shop shop"}},
	{"collation-version", "alike", func(f *Facts) {}, nil},
	{"tablespace-missing", "of a table", func(f *Facts) {
		f.thing(Thing{Kind: "tablespace", Name: "fast", N: 3})
		f.Old.Tablespaces = []Tablespace{{"fast", "/ssd"}}
	}, []string{"block tablespace-missing new fast"}},
	{"tablespace-missing", "of the database", func(f *Facts) { f.Databases[0].Old.Tablespace = "fast" }, []string{"block tablespace-missing new fast"}},
	{"tablespace-missing", "there", func(f *Facts) {
		f.Databases[0].Old.Tablespace = "fast"
		f.New.Tablespaces = []Tablespace{{"fast", "/ssd"}}
	}, nil},
	{"connection-limit", "0", func(f *Facts) { f.Databases[0].Old.ConnLimit = 0 }, []string{"note connection-limit old shop shop"}},
	{
		"connection-limit", "of the tool", func(f *Facts) { f.New.Superuser = false; f.New.Role.ConnLimit = 2 },
		[]string{"block connection-limit new crossfade", "block privileges new crossfade"},
	},
	{"connection-limit", "superusers have none", func(f *Facts) { f.New.Role.ConnLimit = 2 }, nil},
}

var settingCases = []judged{
	{
		"setting-removed", "of a role", func(f *Facts) {
			f.Old.RoleSettings = []RoleSetting{{Role: "app", Name: "force_parallel_mode", Value: "on"}}
		},
		[]string{"block setting-removed old force_parallel_mode"},
	},
	{"setting-removed", "custom, known, elsewhere", func(f *Facts) {
		f.Old.RoleSettings = []RoleSetting{{Role: "app", Name: "my.thing", Value: "1"}, {Role: "app", Name: "WORK_MEM", Value: "1"}, {Database: "left", Name: "force_parallel_mode", Value: "on"}}
	}, nil},
	{"settings-renamed", "wal_keep_segments", func(f *Facts) { f.Old.configure("wal_keep_segments", "64") }, []string{"note settings-renamed old wal_keep_segments"}},
	{"settings-renamed", "at its default", func(f *Facts) { f.Old.set("wal_keep_segments", "0") }, nil},
	{"settings-differ", "work_mem", func(f *Facts) { f.Old.configure("work_mem", "65536") }, []string{"note settings-differ new"}},
	{"settings-differ", "configured on both", func(f *Facts) { f.Old.configure("work_mem", "65536"); f.New.configure("work_mem", "32768") }, nil},
	{
		"read-only-override", "a role", func(f *Facts) {
			f.Old.RoleSettings = []RoleSetting{{Role: "app", Name: "default_transaction_read_only", Value: "off"}}
		},
		[]string{"warn read-only-override old role app"},
	},
	{"read-only-override", "a database", func(f *Facts) {
		f.Old.RoleSettings = []RoleSetting{{Database: "shop", Name: "default_transaction_read_only", Value: "off"}}
	}, nil},
	{
		"timeouts", "of the tool's role", func(f *Facts) {
			f.Old.RoleSettings = []RoleSetting{{Role: "crossfade", Name: "statement_timeout", Value: "5s"}}
		},
		[]string{"note timeouts old statement_timeout"},
	},
	{"timeouts", "of another role", func(f *Facts) {
		f.Old.RoleSettings = []RoleSetting{{Role: "app", Name: "statement_timeout", Value: "5s"}}
	}, nil},
	{
		"max-prepared-transactions", "fewer", func(f *Facts) { f.Old.set("max_prepared_transactions", "20") },
		[]string{"warn max-prepared-transactions new max_prepared_transactions"},
	},
	{"max-prepared-transactions", "as many", func(f *Facts) {
		f.Old.set("max_prepared_transactions", "20")
		f.New.set("max_prepared_transactions", "20")
	}, nil},
}

var activityCases = []judged{
	{
		"prepared-transactions", "one", func(f *Facts) {
			f.Old.Prepared = []Prepared{{GID: "g1", Owner: "app", Database: "shop", Age: time.Minute}}
		},
		[]string{"block prepared-transactions old shop g1"},
	},
	{"prepared-transactions", "on new", func(f *Facts) {
		f.New.Prepared = []Prepared{{GID: "g1", Owner: "app", Database: "shop", Age: time.Minute}}
	}, nil},
	{"long-transactions", "a writer and a reader", func(f *Facts) {
		f.Old.Transactions = []Transaction{
			{PID: 1, Role: "app", Database: "shop", State: "idle in transaction", Age: 2 * time.Minute, Writes: true},
			{PID: 2, Role: "backup", Database: "shop", State: "active", Age: time.Hour},
		}
	}, []string{"warn long-transactions old shop 1", "note long-transactions old shop 2"}},
	{"long-transactions", "short ones", func(f *Facts) {
		f.Old.Transactions = []Transaction{{PID: 1, Age: 20 * time.Second, Writes: true}, {PID: 2, Age: 5 * time.Minute}}
	}, nil},
	{"check-incomplete", "settings, and a database", func(f *Facts) {
		f.Incomplete = []Incomplete{{On: OnNew, What: "settings", Err: denied(), Serious: true}, {On: OnOld, What: "the clock", Err: errors.New("lost")}}
		f.Databases[0].Err, f.Databases[0].Inventory = errors.New("lost"), nil
	}, []string{"block check-incomplete new settings", "block check-incomplete old shop shop", "warn check-incomplete old the clock"}},
	{"check-incomplete", "complete", func(f *Facts) {}, nil},
}
