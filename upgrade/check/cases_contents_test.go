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
		f.indexes("public.log", Index{Name: "log_key", Unique: true})
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
	{"replica-identity-full", "measured: a little", func(f *Facts) {
		f.table(full(2, "log", 200_000, 500))
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "measured: noticeable", func(f *Facts) {
		f.table(full(2, "log", 200_000, 3_000_000)) // 6 ms each, 34.7 a second
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"warn replica-identity-full old shop public.log"}},
	{"replica-identity-full", "measured: never catches up", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000)) // 60 ms each
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"block replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index tells rows apart", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000))
		f.indexes("public.log", Index{Name: "log_at", Method: "btree", Distinct: -0.9})
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index does not tell rows apart", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000))
		f.indexes("public.log", Index{Name: "log_kind", Method: "btree", Distinct: 3}, Index{Name: "log_at", Method: "btree", Distinct: -0.9})
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"warn replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index that 15 does not use", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000))
		f.indexes("public.log", Index{Name: "log_at", Method: "btree", Distinct: -0.9})
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
		f.Old.Version, f.New.Version, f.Programs = 140025, 150020, nil
	}, []string{"block replica-identity-full old shop public.log"}},
	{"identity-lost", "old's index", func(f *Facts) {
		lost(f, LostIdentity{Schema: "public", Name: "parcels", Have: "d", Indexed: true})
	}, []string{"warn identity-lost new shop public.parcels"}},
	{"identity-lost", "its index is to come", func(f *Facts) {
		lost(f, LostIdentity{Schema: "public", Name: "parcels", Have: "d"})
	}, nil},
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
		f.indexes("public.log", Index{Name: "log_x", Unique: true, Why: "it is deferrable"})
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
	{"foreign-key-excluded", "child left behind", func(f *Facts) { related(f, 2, 1, true) }, []string{"warn truncate-cascade old shop public.orders", "note excluded-tables old shop public.parent"}},
}

func lost(f *Facts, x LostIdentity) {
	t := table(2, "parcels") // the inventory is sorted
	t.Identity = schema.Identity{Kind: 'i', Index: "log_key", Usable: true}
	f.table(t)
	f.Databases[0].Lost = []LostIdentity{x}
}

var setCases = []judged{
	{"foreign-key-sets", "crossing", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
	}, []string{"warn foreign-key-sets old shop main, rest", "warn truncate-cascade old shop public.parent"}},
	{"foreign-key-sets", "within one", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets[0].Tables = f.Databases[0].Inventory.Tables
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest"})
	}, nil},
	{"truncate-cascade", "across sets", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
	}, []string{"warn foreign-key-sets old shop main, rest", "warn truncate-cascade old shop public.parent"}},
	{"truncate-cascade", "TRUNCATE was seen", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
		f.Databases[0].DDL = DDL{Counted: true, Truncates: 3, TruncateOne: "TRUNCATE parent CASCADE"}
	}, []string{"block truncate-cascade old shop public.parent", "warn foreign-key-sets old shop main, rest"}},
	{"truncate-cascade", "from a table that is left behind", func(f *Facts) { related(f, 2, 1, true) }, []string{"warn truncate-cascade old shop public.orders", "note excluded-tables old shop public.parent"}},
	{"truncate-cascade", "within one", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets[0].Tables = f.Databases[0].Inventory.Tables
	}, nil},
	{"many-sets", "more than half of the cores", func(f *Facts) { f.OldMachine.Cores = 2; split(f, 4) }, []string{"warn many-sets old sets"}},
	{"many-sets", "cores are not known", func(f *Facts) { f.OldMachine.Cores = 0; split(f, 9) }, []string{
		"block logical-workers new max_logical_replication_workers", "block logical-workers old max_logical_replication_workers", "block worker-processes new max_worker_processes",
		"block worker-processes old max_worker_processes", "note many-sets old sets",
	}},
	{"many-sets", "one each", func(f *Facts) { f.OldMachine.Cores = 1 }, nil},
	{"many-sets", "enough cores", func(f *Facts) { split(f, 4) }, nil},
}

// split makes n sets.
func split(f *Facts, n int) {
	f.Databases[0].Sets = nil
	for i := range n {
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: string(rune('a' + i))})
	}
}

func related(f *Facts, from, to uint32, excluded bool) {
	t := table(2, "parent")
	t.Excluded = excluded
	f.table(t)
	f.Databases[0].Inventory.ForeignKeys = []schema.Edge{{From: from, To: to}}
}

var applyCases = []judged{
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
	{"unqualified-names", "in a CHECK", func(f *Facts) {
		f.thing(Thing{Kind: "unqualified", Name: "public.known(text)", Detail: "constraint c on table orders\x01rates", More: "public", N: 2})
	}, []string{"warn unqualified-names old shop public.known(text)"}},
	{"unqualified-names", "none", func(f *Facts) {}, nil},
	{"foreign-key-disabled", "one", func(f *Facts) {
		f.thing(Thing{Kind: "disabled-fk", Name: "public.lines", Detail: "lines_order_fkey", More: "FOREIGN KEY (a) REFERENCES public.orders(id)"})
	}, []string{"warn foreign-key-disabled old shop public.lines.lines_order_fkey"}},
	{"foreign-key-disabled", "none", func(f *Facts) {}, nil},
}

var partitionCases = []judged{
	{"partition-horizon", "ends in three days", func(f *Facts) { horizon(f, -27, 3) }, []string{"warn partition-horizon old shop public.events"}},
	{"partition-horizon", "far ahead", func(f *Facts) { horizon(f, 60, 90) }, nil},
	{"partition-horizon", "nobody makes any more", func(f *Facts) { horizon(f, -900, -870) }, nil},
	{"enum-hash-partitions", "one", func(f *Facts) {
		f.thing(Thing{Kind: "enum-hash", Name: "public.moods", Detail: "mood", More: "public.mood"})
	}, []string{"block enum-hash-partitions old shop public.moods"}},
	{"enum-hash-partitions", "none", func(f *Facts) {}, nil},
	{"unlogged-partitioned", "to 18", func(f *Facts) { unloggedRoot(f) }, []string{"block unlogged-partitioned old shop public.root"}},
	{"unlogged-partitioned", "to 17", func(f *Facts) { unloggedRoot(f); f.New.Version, f.Programs = 170012, nil }, nil},
}

func horizon(f *Facts, from, to int) {
	at := func(days int) string {
		return f.At.UTC().Truncate(24*time.Hour).AddDate(0, 0, days).Format(time.RFC3339)
	}
	f.thing(Thing{Kind: "horizon", Name: "public.events", Detail: "date", More: at(from) + " " + at(to), N: 7})
}

func unloggedRoot(f *Facts) {
	t := table(2, "root")
	t.Kind, t.Persistence = 'p', 'u'
	f.table(t)
}

var extensionCases = []judged{
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
	{"extension-preload", "an extension needs it", func(f *Facts) {
		f.Old.set("shared_preload_libraries", "pg_cron")
		f.New.Extensions["pg_cron"], f.New.Libraries = Extension{Default: "1.6"}, []string{"auto_explain"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"block extension-needs-preload new shop pg_cron", "warn extension-preload new shared_preload_libraries", "warn extension-workers old shop pg_cron"}},
	{"extension-needs-preload", "pg_cron", func(f *Facts) {
		f.New.Extensions["pg_cron"] = Extension{Default: "1.6"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"block extension-needs-preload new shop pg_cron", "warn extension-workers old shop pg_cron"}},
	{"extension-needs-preload", "loaded", func(f *Facts) {
		f.New.set("shared_preload_libraries", "pg_cron")
		f.New.Extensions["pg_cron"] = Extension{Default: "1.6"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"warn extension-workers old shop pg_cron"}},
	{"extension-preload", "there", func(f *Facts) {
		f.Old.set("shared_preload_libraries", "auto_explain")
		f.New.set("shared_preload_libraries", "auto_explain,x")
	}, nil},
	{"extension-workers", "pg_partman", func(f *Facts) {
		f.New.Extensions["pg_partman"] = Extension{Default: "4.7"}
		f.thing(Thing{Kind: "extension", Name: "pg_partman", Detail: "4.7"})
	}, []string{"warn extension-workers old shop pg_partman"}},
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
	{"library-missing", "new has none", func(f *Facts) {
		f.New.Libraries = []string{"plpgsql"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 2})
	}, []string{"block library-missing new shop $libdir/mine"}},
	{"library-missing", "not known", func(f *Facts) { f.thing(Thing{Kind: "c-function", Name: "public.f", More: "/opt/mine", N: 1}) }, []string{"warn c-functions old shop /opt/mine"}},
	{"c-functions", "new has one", func(f *Facts) {
		f.New.Libraries = []string{"mine"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 2})
	}, []string{"note c-functions old shop $libdir/mine"}},
	{"c-functions", "none", func(f *Facts) {}, nil},
}

var removedCases = []judged{
	{"removed-types", "abstime, postfix", func(f *Facts) {
		f.thing(Thing{Kind: "removed-type", Name: "public.t", Detail: "at", More: "abstime"}, Thing{Kind: "postfix", Name: "public.!", Detail: "integer"}, Thing{Kind: "opaque", Name: "public.f(opaque)"})
	}, []string{"block removed-types old shop public.!", "block removed-types old shop public.f(opaque)", "block removed-types old shop public.t"}},
	{"removed-types", "none", func(f *Facts) {}, nil},
	{"table-oids", "one", func(f *Facts) { f.thing(Thing{Kind: "oids", Name: "public.t"}) }, []string{"warn table-oids old shop public.t"}},
	{"table-oids", "none", func(f *Facts) {}, nil},
	{"removed-functions", "in views and an aggregate", func(f *Facts) {
		builtins(f)
		f.thing(Thing{Kind: "gone", Name: "view public.v", Detail: "388"}, Thing{Kind: "gone", Name: "view public.w", More: "3813"},
			Thing{Kind: "over-builtin", Name: "aggregate public.agg(anyelement)", Detail: "378"}, Thing{Kind: "over-builtin", Name: "aggregate public.fine(anyelement)", Detail: "1"})
	}, []string{
		"block removed-functions old shop aggregate public.agg(anyelement)", "block removed-functions old shop view public.v", "block removed-functions old shop view public.w",
	}},
	{"removed-in-bodies", "one", func(f *Facts) { f.thing(Thing{Kind: "body", Name: "public.backup()", Detail: "pg_is_in_backup"}) }, []string{"warn removed-in-bodies old shop public.backup()"}},
	{"removed-in-bodies", "none", func(f *Facts) {}, nil},
	{"removed-functions", "not known", func(f *Facts) { f.thing(Thing{Kind: "gone", Name: "view public.v", Detail: "388"}) }, nil},
	{"removed-columns", "of a view of the server", func(f *Facts) {
		f.New.Columns = set([]string{"pg_catalog.pg_stat_bgwriter.buffers_clean"})
		f.thing(Thing{Kind: "view-column", Name: "public.bg", Detail: "pg_catalog.pg_stat_bgwriter", More: "buffers_backend"},
			Thing{Kind: "view-column", Name: "public.gone", Detail: "pg_catalog.pg_shadow", More: "usename"},
			Thing{Kind: "view-column", Name: "public.fine", Detail: "pg_catalog.pg_stat_bgwriter", More: "buffers_clean"})
	}, []string{"block removed-columns old shop public.bg", "block removed-columns old shop public.gone"}},
	{"removed-columns", "not known", func(f *Facts) {
		f.thing(Thing{Kind: "view-column", Name: "public.bg", Detail: "pg_catalog.pg_stat_bgwriter", More: "buffers_backend"})
	}, nil},
	{"not-immutable", "an interval as text", func(f *Facts) { f.thing(Thing{Kind: "mutable", Name: "index public.i", Detail: "COERCEVIAIO"}) }, []string{"block not-immutable old shop index public.i"}},
	{"not-immutable", "none", func(f *Facts) {}, nil},
}

// builtins are a few functions and operators of both servers.
func builtins(f *Facts) {
	f.Old.Functions = map[uint32]Function{
		1: {"same", "23", "i"}, 378: {"array_append", "2277 2283", "i"}, 3813: {"pg_is_in_backup", "", "v"}, 1161: {"interval_out", "1186", "i"},
	}
	f.New.Functions = map[uint32]Function{
		1: {"same", "23", "i"}, 378: {"array_append", "5078 5077", "i"}, 3813: {"xmltext", "25", "i"}, 1161: {"interval_out", "1186", "s"},
	}
	f.Old.Operators, f.New.Operators = map[uint32]string{388: "! 20 0", 96: "= 23 23"}, map[uint32]string{96: "= 23 23"}
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
	{"foreign-tables", "two servers", func(f *Facts) {
		f.thing(Thing{Kind: "foreign-server", Name: "far", Detail: "postgres_fdw", More: "dbname=x host=db7", N: 2}, Thing{Kind: "foreign-server", Name: "near", Detail: "postgres_fdw", More: "dbname=x"})
	}, []string{"warn foreign-tables old shop near", "note foreign-tables old shop far"}},
	{"foreign-tables", "none", func(f *Facts) {}, nil},
	{"materialized-views", "filled", func(f *Facts) {
		f.Databases[0].Inventory.MaterializedViews = []schema.MaterializedView{{Schema: "public", Name: "mv", Populated: true}}
	}, []string{"note materialized-views old shop"}},
	{"materialized-views", "never filled", func(f *Facts) {
		f.Databases[0].Inventory.MaterializedViews = []schema.MaterializedView{{Schema: "public", Name: "mv"}}
	}, nil},
	{"temporary-tables", "some", func(f *Facts) { f.thing(Thing{Kind: "temporary", N: 2}) }, []string{"note temporary-tables old shop"}},
	{"temporary-tables", "none", func(f *Facts) {}, nil},
	{"invalid-index", "one", func(f *Facts) { f.thing(Thing{Kind: "invalid-index", Name: "public.i", More: "public.t"}) }, []string{"warn invalid-index old shop public.i"}},
	{"invalid-index", "none", func(f *Facts) {}, nil},
	{"template-changed", "an extension and functions", func(f *Facts) {
		f.Template = []Thing{{Kind: "extension", Name: "hstore", N: 1}, {Kind: "user-function", Name: "public.f", N: 3}, {Kind: "publication", Name: "p", N: 1}}
	}, []string{"note template-changed old template1 template1"}},
	{"template-changed", "nothing", func(f *Facts) {}, nil},
	{"security-labels", "selinux", func(f *Facts) { f.thing(Thing{Kind: "label", Name: "selinux", N: 4}) }, []string{"block security-labels new shop selinux"}},
	{"security-labels", "loaded", func(f *Facts) {
		f.thing(Thing{Kind: "label", Name: "selinux", N: 4})
		f.New.set("shared_preload_libraries", "sepgsql")
	}, nil},
	{"compression-missing", "lz4", func(f *Facts) {
		f.thing(Thing{Kind: "lz4", N: 2})
		f.New.Settings["default_toast_compression"] = Setting{Value: "pglz", Enum: []string{"pglz"}}
	}, []string{"block compression-missing new shop lz4"}},
	{"compression-missing", "can", func(f *Facts) {
		f.thing(Thing{Kind: "lz4", N: 2})
		f.New.Settings["default_toast_compression"] = Setting{Value: "pglz", Enum: []string{"pglz", "lz4"}}
	}, nil},
	{"sequence-exhausted", "its column is narrower", func(f *Facts) {
		s := sequence(math.MaxInt32 - 5)
		s.Type, s.Max, s.Table, s.Column = "bigint", math.MaxInt64, 1, 1
		f.Databases[0].Inventory.Tables[0].Columns[0].Type = "integer"
		f.Databases[0].Inventory.Sequences = []schema.Sequence{s}
	}, []string{"warn sequence-exhausted old shop public.s"}},
	{
		"sequence-exhausted", "int4 at its end", func(f *Facts) { f.Databases[0].Inventory.Sequences = []schema.Sequence{sequence(math.MaxInt32 - 5)} },
		[]string{"warn sequence-exhausted old shop public.s"},
	},
	{"sequence-exhausted", "half way", func(f *Facts) { f.Databases[0].Inventory.Sequences = []schema.Sequence{sequence(math.MaxInt32 / 2)} }, nil},
}

func sequence(last int64) schema.Sequence {
	return schema.Sequence{Schema: "public", Name: "s", Type: "integer", Increment: 1, Min: 1, Max: math.MaxInt32, Start: 1, Last: &last, Called: true}
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
