package check

import (
	"errors"
	"time"
)

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
	{"database-invalid", "left", func(f *Facts) {
		f.Old.Databases = append(f.Old.Databases, Catalog{Name: "half", AllowsConnections: true, ConnLimit: -2})
	}, []string{"warn database-invalid old half"}},
	{"database-invalid", "moved", func(f *Facts) { f.Databases[0].Old.ConnLimit = -2 }, []string{"block database-invalid old shop"}},
	{"database-invalid", "whole", func(f *Facts) {}, nil},
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
	{"database-left", "a template, and one that is closed", func(f *Facts) {
		f.Old.Databases = append(f.Old.Databases, Catalog{Name: "forms", Template: true, AllowsConnections: true}, Catalog{Name: "shut"})
		f.Want.AllDatabases = true
	}, []string{"warn database-left old forms forms", "warn database-left old shut shut"}},
	{"database-template", "named", func(f *Facts) { f.Databases[0].Old.Template = true }, []string{"warn database-template old shop shop"}},
	{"database-template", "of initdb", func(f *Facts) {
		f.Databases[0].Old.Template, f.Databases[0].Old.Name = true, "template1"
	}, []string{"block database-template old shop shop"}},
	{"database-template", "none", func(f *Facts) {}, nil},
	{"plpgsql-missing", "on old", func(f *Facts) { f.thing(Thing{Kind: "no-plpgsql"}) }, []string{"block plpgsql-missing old shop plpgsql"}},
	{"plpgsql-missing", "there", func(f *Facts) {}, nil},
	{"extension-members", "a table and a function", func(f *Facts) {
		f.Databases[0].Added = []Member{{"hstore", "table", "mine", "public.mine"}, {"hstore", "function", "f()", "public.f()"}}
	}, []string{"block extension-members old shop public.mine", "warn extension-members old shop public.f()"}},
	{"extension-members", "none", func(f *Facts) {}, nil},
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
	{"collation-version", "of a column", func(f *Facts) {
		f.thing(Thing{Kind: "collation-changed", Name: "pg_catalog.\"de-x-icu\"", Detail: "153.112", More: "153.120"})
	}, []string{"warn collation-version old shop pg_catalog.\"de-x-icu\""}},
	{"collation-version", "ranges of text", func(f *Facts) {
		f.New.Databases[0].ActualVersion = "2.41"
		f.thing(Thing{Kind: "text-range", Name: "public.names", Detail: "name", More: "default"})
	}, []string{"warn collation-version new shop public.names", "note collation-version new shop shop"}},
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
	{"setting-removed", "a value that new refuses", func(f *Facts) {
		f.New.Settings["work_mem"] = Setting{Value: "4096", Unit: "kB", Type: "integer", Min: "64", Max: "2147483647"}
		f.New.Settings["wal_level"] = Setting{Value: "logical", Type: "enum", Enum: []string{"minimal", "replica", "logical"}}
		f.Old.RoleSettings = []RoleSetting{{Role: "app", Name: "work_mem", Value: "8"}, {Role: "app", Name: "wal_level", Value: "archive"}, {Role: "fine", Name: "work_mem", Value: "8MB"}}
	}, []string{"block setting-removed old wal_level", "block setting-removed old work_mem"}},
	{"setting-removed", "of a function", func(f *Facts) {
		f.thing(Thing{Kind: "function-setting", Name: "public.f()", Detail: "force_parallel_mode", More: "on"}, Thing{Kind: "function-setting", Name: "public.g()", Detail: "work_mem", More: "1GB"})
	}, []string{"block setting-removed old shop public.f()"}},
	{"setting-removed", "custom, known, elsewhere", func(f *Facts) {
		f.Old.RoleSettings = []RoleSetting{{Role: "app", Name: "my.thing", Value: "1"}, {Role: "app", Name: "WORK_MEM", Value: "1"}, {Database: "left", Name: "force_parallel_mode", Value: "on"}}
	}, nil},
	{"settings-renamed", "three", func(f *Facts) {
		f.Old.Version = 120022
		f.Old.configure("wal_keep_segments", "64", "force_parallel_mode", "on", "effective_io_concurrency", "200", "nonsense", "1")
	}, []string{"warn known-bad-minor old 12.22", "note settings-renamed old configuration"}},
	{"settings-renamed", "at its default", func(f *Facts) { f.Old.set("wal_keep_segments", "0") }, nil},
	{"settings-renamed", "it happened before old", func(f *Facts) {
		f.Old.configure("effective_io_concurrency", "200")
		f.New.configure("effective_io_concurrency", "200")
	}, nil},
	{"settings-renamed", "a value that new refuses", func(f *Facts) {
		f.Old.configure("ssl_min_protocol_version", "TLSv1")
		f.New.Settings["ssl_min_protocol_version"] = Setting{Value: "TLSv1.2", Type: "enum", Enum: []string{"TLSv1.2", "TLSv1.3"}}
	}, []string{"note settings-renamed old configuration"}},
	{"settings-defaults", "effective_io_concurrency", func(f *Facts) {
		f.Old.set("effective_io_concurrency", "1", "jit", "on")
		f.New.set("effective_io_concurrency", "16", "jit", "on")
	}, []string{"note settings-defaults new defaults"}},
	{"settings-defaults", "somebody set it", func(f *Facts) {
		f.Old.set("effective_io_concurrency", "1")
		f.New.configure("effective_io_concurrency", "1")
	}, nil},
	{"settings-differ", "work_mem", func(f *Facts) { f.Old.configure("work_mem", "65536") }, []string{"note settings-differ new configuration"}},
	{"settings-differ", "configured on both", func(f *Facts) { f.Old.configure("work_mem", "65536"); f.New.configure("work_mem", "32768") }, []string{"note settings-differ new configuration"}},
	{"settings-differ", "alike", func(f *Facts) { f.Old.configure("work_mem", "65536"); f.New.configure("work_mem", "65536") }, nil},
	{"settings-results", "TimeZone and search_path", func(f *Facts) {
		f.Old.configure("TimeZone", "Europe/Brussels", "search_path", "\"$user\", app")
		f.New.configure("TimeZone", "Etc/UTC")
		f.New.set("search_path", "\"$user\", public")
	}, []string{"warn settings-results new configuration"}},
	{"settings-results", "two names of UTC", func(f *Facts) { f.Old.configure("TimeZone", "UTC"); f.New.configure("TimeZone", "Etc/UTC") }, nil},
	{"snapshot-too-old", "an hour", func(f *Facts) { f.Old.set("old_snapshot_threshold", "60") }, []string{"block snapshot-too-old old old_snapshot_threshold"}},
	{"snapshot-too-old", "off", func(f *Facts) { f.Old.set("old_snapshot_threshold", "-1") }, nil},
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
	{"timeouts", "of the receiver", func(f *Facts) { f.New.set("wal_receiver_timeout", "2000") }, []string{"warn timeouts new wal_receiver_timeout"}},
	{
		"timeouts", "new drops options of a subscription", func(f *Facts) {
			f.New.Version, f.Programs = 180001, nil
			f.Old.RoleSettings = []RoleSetting{{Database: "shop", Name: "statement_timeout", Value: "5s"}}
		},
		[]string{"warn known-bad-minor new 18.1", "warn timeouts new options", "note timeouts old shop statement_timeout"},
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
	}, []string{"warn prepared-transactions new shop g1"}},
	{"prepared-transactions", "none", func(f *Facts) {}, nil},
	{"locks-held", "on a table, on an index", func(f *Facts) {
		f.Old.Locks = []Lock{
			{PID: 7, Database: "shop", Relation: 1, Mode: "ShareUpdateExclusiveLock", Backend: "client backend", Role: "dba", Query: "VACUUM orders", Age: time.Hour},
			{PID: 8, Database: "shop", Relation: 99, Mode: "AccessExclusiveLock", Backend: "client backend"},
			{PID: 9, Database: "shop", Relation: 1, Mode: "ShareUpdateExclusiveLock", Backend: "autovacuum worker", Query: "autovacuum: VACUUM public.orders (to prevent wraparound)"},
		}
	}, []string{"warn locks-held old shop 7", "warn locks-held old shop 9"}},
	{"locks-held", "elsewhere", func(f *Facts) {
		f.Old.Locks = []Lock{{PID: 7, Database: "other", Relation: 1, Mode: "AccessExclusiveLock", Backend: "client backend"}}
	}, nil},
	{"xid-age", "due", func(f *Facts) { old(f, 250_000_000, 5) }, []string{"warn xid-age old age"}},
	{"xid-age", "late", func(f *Facts) { old(f, 1_700_000_000, 5) }, []string{"block xid-age old age"}},
	{"xid-age", "of multixacts", func(f *Facts) { old(f, 5, 500_000_000) }, []string{"warn xid-age old age"}},
	{"xid-age", "young", func(f *Facts) { old(f, 150_000_000, 5) }, nil},
	{"session-state", "a lock", func(f *Facts) {
		f.Old.Advisory = []Advisory{{Database: "shop", Role: "app", Application: "worker", Count: 3}, {Database: "left", Role: "app", Count: 1}}
	}, []string{"note session-state old shop shop"}},
	{"session-state", "none", func(f *Facts) {}, nil},
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

func old(f *Facts, age, multi int64) {
	f.Old.set("autovacuum_freeze_max_age", "200000000", "autovacuum_multixact_freeze_max_age", "400000000")
	f.Databases[0].Old.Age, f.Databases[0].Old.MultiAge = age, multi
}

var ddlCases = []judged{
	{"ddl-activity", "committed, counted", func(f *Facts) {
		f.Databases[0].DDL = DDL{Committed: true, Count: 3, Last: f.At.Add(-time.Hour), Example: "table public.orders", Counted: true, Calls: 12, Call: "ALTER TABLE orders ADD x int"}
	}, []string{"warn ddl-activity old shop commits", "warn ddl-activity old shop pg_stat_statements"}},
	{"ddl-activity", "a tool that cannot be watched", func(f *Facts) { f.table(table(2, "flyway_schema_history")) }, []string{"note ddl-activity old shop public.flyway_schema_history"}},
	{"ddl-activity", "a tool that did nothing", func(f *Facts) {
		f.table(table(2, "flyway_schema_history"))
		f.Databases[0].DDL = DDL{Committed: true}
	}, nil},
}
