package schema_test
import ("testing";"time";"crossfade/schema";"crossfade/upgrade/pg";"fmt")
func TestZZ(t *testing.T){
 for _, v := range []int{15,18} {
  s, err := pg.Parse("x", fmt.Sprintf("host=/tmp/sch port=553%d user=postgres dbname=many", v), "")
  must(t, err)
  conn := connect(t, s)
  for i := range 2 {
   t0 := time.Now(); q, err := schema.ReadSequences(t.Context(), conn); must(t, err); n:=0; for _, x := range q { if !x.Called {n++} }
   fmt.Println(v, i, "sequences", len(q), "uncalled", n, time.Since(t0))
   t0 = time.Now(); inv, err := schema.Read(t.Context(), conn, schema.Filter{NoObjects: true}); must(t, err)
   fmt.Println(v, i, "inventory", len(inv.Tables), time.Since(t0))
   t0 = time.Now(); inv, err = schema.Read(t.Context(), conn, schema.Filter{NoObjects: true,NoSizes:true}); must(t, err)
   fmt.Println(v, i, "inventory without sizes", len(inv.Tables), time.Since(t0))
   t0 = time.Now(); inv, err = schema.Read(t.Context(), conn, schema.Filter{}); must(t, err)
   fmt.Println(v, i, "with objects", len(inv.Objects), time.Since(t0))
   t0 = time.Now(); d := schema.Diff(inv, inv);fmt.Println(v, i, "diff", len(d), time.Since(t0))
   t0 = time.Now(); sql, _ := schema.SetSequences(q, 1000); must(t, pg.Exec(t.Context(), conn, sql)); fmt.Println(v, i, "set", time.Since(t0))
   t0 = time.Now(); var f string;  must(t, conn.QueryRow(t.Context(), schema.FingerprintSQL(v*10000)).Scan(&f)); fmt.Println(v, i, "fingerprint", time.Since(t0))
  }
  if v == 15 { t0 := time.Now(); e, _, err := schema.Dump(t.Context(), s, "/opt/pg/18/usr/lib/postgresql/18/bin/pg_dump"); must(t, err); fmt.Println("dump", len(e), time.Since(t0))
    t0 = time.Now(); schema.RestoreEffects(e, "new", "x"); fmt.Println("effects", time.Since(t0))
    s, err := pg.Parse("x", fmt.Sprintf("host=/tmp/sch port=553%d user=postgres dbname=many2", 18), ""); must(t, err)
    c := session(t, s); exec(t, c, schema.Ledger("new","").SQL)
    for st := schema.Before; st <= schema.Refresh; st++ { t0 = time.Now(); p := schema.Entries(e, st); must(t, schema.Restore(t.Context(), c, p, nil)); fmt.Println("restore", st, len(p), time.Since(t0)) }
    t0 = time.Now();  must(t, schema.Restore(t.Context(), c, e, nil)); fmt.Println("restore again", time.Since(t0))
    for i := range 2 { _ = i
    a, b := read(t, mustp(pg.Parse("x", "host=/tmp/sch port=55315 user=postgres dbname=many", ""))), read(t, s)
    t0 = time.Now(); d, err := schema.Compare(t.Context(), connect(t, s), a, b);must(t, err); fmt.Println("compare", len(schema.Unexpected(d)), time.Since(t0)) }
  }
 }
}
func mustp(s *pg.Server, err error) *pg.Server { if err != nil { panic(err) }; return s }
