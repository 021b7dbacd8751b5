package schema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/schema"
)

func TestInventory(t *testing.T) {
	for _, major := range []int{13, 15, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := hard(t, major)
			conn := connect(t, s)
			exec(t, conn, `
				CREATE TABLE public.unusual (
					a regclass, b oid, c shop.state, d shop.address, e shop.email, f shop.price_range, g text[], h shop.state[], i json, j xml, k public.hstore,
					l shop.quantity[], m int4range, n name, o "char", p uuid, q point, r json[], s varchar(5)[]);
				ALTER TABLE public.unusual REPLICA IDENTITY FULL;
				CREATE TABLE public.deferred (id int PRIMARY KEY DEFERRABLE, other int NOT NULL UNIQUE, third int UNIQUE);
				CREATE TABLE public.part (id int NOT NULL);
				CREATE UNIQUE INDEX part_some ON public.part (id) WHERE id > 0; CREATE UNIQUE INDEX part_expression ON public.part ((id + 1));
				CREATE TEMP TABLE t (id int); SELECT lo_create(0), lo_create(0)`)
			inv, err := schema.Read(t.Context(), conn, schema.Filter{})
			must(t, err)
			if inv.Database != s.Database() || inv.Version/10000 != major || inv.LargeObjects != 2 {
				t.Errorf("%s %d %d", inv.Database, inv.Version, inv.LargeObjects)
			}
			for _, c := range []struct {
				schema, name string
				kind         byte
				usable       bool
				says         string
			}{
				{"shop", "orders", 'd', true, "orders_pkey id  "},
				{"shop", "by_index", 'i', true, "by_index_key country,code  "},
				{"audit", "log", 'f', true, "   "},
				{"audit", "no_columns", 'n', false, "  its replica identity is NOTHING "},
				{"shop", "by_month", 'd', false, "  it has no primary key "},
				{"public", "unusual", 'f', false, "  its replica identity is FULL, and column i has type json, which has no equality "},
				{"public", "deferred", 'd', false, "deferred_pkey id its primary key deferred_pkey is deferrable deferred_other_key"},
				{"public", "part", 'd', false, "  it has no primary key "},
			} {
				id := get(t, inv, c.schema, c.name).Identity
				says := strings.Join([]string{id.Index, strings.Join(id.Columns, ","), id.Why, id.Candidate}, " ")
				if id.Kind != c.kind || id.Usable != c.usable || says != c.says {
					t.Errorf("%s.%s: %c %t %q", c.schema, c.name, id.Kind, id.Usable, says)
				}
			}
			binary := ""
			for _, c := range get(t, inv, "public", "unusual").Columns {
				if c.TypeBuiltin {
					binary += c.Name
				}
			}
			if binary != "befgimnopqrs" {
				t.Errorf("binary columns of unusual: %s", binary)
			}
			orders := get(t, inv, "shop", "orders")
			if orders.Binary() || orders.Columns[0].Identity != 'a' || orders.Owner != "hard_owner" || orders.Rows != -1 && orders.Rows < 100 ||
				orders.Pages < 10 || orders.Bytes < orders.Pages*8192 || orders.IndexBytes < 100000 || orders.Triggers != 2 || !orders.Published() {
				t.Errorf("%+v", orders)
			}
			if g := get(t, inv, "shop", "order_lines").Columns[5]; g.Generated != 's' || g.Name != "gross" {
				t.Errorf("%+v", g)
			}
			if c := get(t, inv, "shop", "customers").Columns[2]; c.Collation != `pg_catalog."C"` || !c.NotNull || c.Type != "text" {
				t.Errorf("%+v", c)
			}
		})
	}
}

// get finds a table that must be there.
func get(t testing.TB, inv *schema.Inventory, in, name string) *schema.Table {
	t.Helper()
	table := inv.Find(in, name)
	if table == nil {
		t.Fatalf("no table %s.%s", in, name)
	}
	return table
}

func TestInventoryOfWhatHangsTogether(t *testing.T) {
	for _, major := range []int{13, 15, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connect(t, hard(t, major))
			exec(t, conn, `
				CREATE TABLE public.conf (id int PRIMARY KEY); CREATE TABLE public.made (id int PRIMARY KEY); CREATE SEQUENCE public.counts;
				ALTER EXTENSION hstore ADD TABLE public.conf; ALTER EXTENSION hstore ADD TABLE public.made; ALTER EXTENSION hstore ADD SEQUENCE public.counts;
				UPDATE pg_extension SET extconfig = ARRAY['public.conf'::regclass::oid], extcondition = ARRAY['WHERE id > 1'] WHERE extname = 'hstore'`)
			inv, err := schema.Read(t.Context(), conn, schema.Filter{Exclude: []string{"audit.*", "shop.events_202?"}})
			must(t, err)
			if c := get(t, inv, "public", "conf"); c.Extension != "hstore" || !c.ExtConfig || c.ExtCondition != "WHERE id > 1" || !c.Published() {
				t.Errorf("%+v", c)
			}
			if c := get(t, inv, "public", "made"); c.Extension != "hstore" || c.ExtConfig || c.Published() {
				t.Errorf("%+v", c)
			}
			root, leaf := get(t, inv, "shop", "events_2025"), get(t, inv, "shop", "events_2025_rest")
			if root.Kind != 'p' || !root.Partition || !leaf.Partition || !slices.Equal(leaf.Parents, []uint32{root.OID}) || root.Published() || !leaf.Published() {
				t.Errorf("%+v %+v", root, leaf)
			}
			if !get(t, inv, "audit", "log").Excluded || !root.Excluded || leaf.Excluded || get(t, inv, "audit", "log").Published() {
				t.Error("the patterns do not match what they should")
			}
			if cache := get(t, inv, "audit", "cache"); cache.Persistence != 'u' || cache.Published() {
				t.Errorf("%+v", cache)
			}
			orders, customers := get(t, inv, "shop", "orders"), get(t, inv, "shop", "customers")
			if b := get(t, inv, "shop", "bookings"); !b.RowSecurity || !b.ForceRLS {
				t.Errorf("%+v", b)
			}
			odd := get(t, inv, "Odd Schema", `a.b "c"; Type: TABLE; Schema: x`)
			if odd.String() != `"Odd Schema"."a.b ""c""; Type: TABLE; Schema: x"` || orders.String() != "shop.orders" || orders.SQL() != `"shop"."orders"` {
				t.Errorf("%s %s %s", odd, orders, orders.SQL())
			}
			for _, e := range []schema.Edge{{From: orders.OID, To: customers.OID}, {From: customers.OID, To: orders.OID}, {From: orders.OID, To: orders.OID}} {
				if !slices.Contains(inv.ForeignKeys, e) {
					t.Errorf("no edge %v", e)
				}
			}
			for _, table := range inv.Tables {
				if table.Name == "t" || table.Schema == "crossfade" {
					t.Errorf("%s is in the inventory", table)
				}
			}
			var views []string
			for _, v := range inv.MaterializedViews {
				views = append(views, v.String())
			}
			if a, b := slices.Index(views, "shop.totals"), slices.Index(views, "shop.a_top"); a < 0 || b < a || len(views) != 5 {
				t.Errorf("refreshed in the order %v", views)
			}
			if len(inv.Triggers) != 2 || inv.Triggers[0].String() != "trigger replica on audit.orders" || inv.Triggers[1].Restore() != `ALTER TABLE ONLY "shop"."by_index" ENABLE ALWAYS TRIGGER "always"` {
				t.Errorf("%v", inv.Triggers)
			}
			i := slices.IndexFunc(inv.Sequences, func(s schema.Sequence) bool { return s.Name == "customers_id_seq" })
			if q := inv.Sequences[i]; q.OwnedBy != "shop.customers.id" || q.Table != customers.OID || *q.Last != 1000 || !q.Called || q.Type != "bigint" {
				t.Errorf("%+v", q)
			}
		})
	}
}

// Sizes are not asked of a table that somebody holds: that would wait.
func TestInventoryDoesNotWait(t *testing.T) {
	s := hard(t, 15)
	conn, app := connect(t, s), connect(t, s)
	exec(t, conn, "SET lock_timeout = '200ms'")
	exec(t, app, "BEGIN; LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE")
	inv, err := schema.Read(t.Context(), conn, schema.Filter{NoObjects: true})
	must(t, err)
	if inv.Find("shop", "orders") == nil {
		t.Error("the table is missing")
	}
}

func TestTriggersOfPartitions(t *testing.T) {
	for _, major := range []int{13, 15, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connect(t, hard(t, major))
			exec(t, conn, `ALTER TABLE shop.events ENABLE ALWAYS TRIGGER on_events; ALTER TABLE ONLY shop.events_default ENABLE REPLICA TRIGGER on_events`)
			state := func() (s string) {
				t.Helper()
				must(t, conn.QueryRow(t.Context(), `SELECT string_agg(tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text, ', ' ORDER BY tgrelid::regclass::text, tgname) FROM pg_trigger WHERE tgname ~ 'on_events|always|replica'`).Scan(&s))
				return s
			}
			before := state()
			firing, err := schema.FiringTriggers(t.Context(), conn)
			must(t, err)
			for _, f := range firing {
				exec(t, conn, f.Disable())
			}
			if now, err := schema.FiringTriggers(t.Context(), conn); err != nil || len(now) != 0 {
				t.Errorf("%v %v", now, err)
			}
			for _, f := range firing {
				exec(t, conn, f.Restore())
			}
			if after := state(); after != before {
				t.Errorf("before %s\nafter  %s", before, after)
			}
		})
	}
}

func TestAnalyze(t *testing.T) {
	tables := []schema.Table{{Schema: "s", Name: "small", Bytes: 1}, {Schema: "s", Name: "big", Bytes: 9}, {Schema: "s", Name: "mid", Bytes: 5}}
	got := strings.Join(schema.Analyze(tables, 10, 2), "; ")
	want := `SET default_statistics_target = 10; ANALYZE "s"."big", "s"."mid"; ANALYZE "s"."small"; RESET default_statistics_target`
	if got != want {
		t.Error(got)
	}
	s := hard(t, 18)
	for _, sql := range schema.Analyze(read(t, s).Tables, 0, 0) {
		exec(t, connect(t, s), sql)
	}
}
