package schema_test
import ("testing";"time";"crossfade/schema";"crossfade/upgrade/pg";"fmt";"os")
func TestZZ(t *testing.T){
 for _, v := range []int{15,18} {
  s, err := pg.Parse("x", fmt.Sprintf("host=/tmp/sch port=553%d user=postgres dbname=%s", v, os.Getenv("DBN")), "")
  must(t, err)
  conn := connect(t, s)
  for i := range 3 {
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
  }
  if v == 15 { t0 := time.Now(); e, _, err := schema.Dump(t.Context(), s, "/opt/pg/18/usr/lib/postgresql/18/bin/pg_dump"); must(t, err); fmt.Println("dump", len(e), time.Since(t0)) }
 }
}
