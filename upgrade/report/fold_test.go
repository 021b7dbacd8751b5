package report

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"crossfade/upgrade/flow"
)

// TestFold: what a step does object by object is folded although no two like
// effects follow each other; runs stay where they are; short ones are shown.
func TestFold(t *testing.T) {
	var copies, stages []flow.Effect
	for i := range 30 {
		for _, sql := range []string{"TRUNCATE ONLY a%d", "COPY a%d TO STDOUT", "ALTER TABLE ONLY a%d ADD PRIMARY KEY (id)"} {
			copies = append(copies, flow.Effect{On: "new", Database: "shop", SQL: fmt.Sprintf(sql, i)})
		}
	}
	copies = append(copies, flow.Effect{On: "old", Database: "shop", SQL: "TRUNCATE ONLY elsewhere"})
	for range 2 {
		stages = append(stages, flow.Effect{On: "new", SQL: "SET x"})
		for i := range 25 {
			stages = append(stages, flow.Effect{On: "new", SQL: fmt.Sprintf("ANALYZE a%d", i)})
		}
	}
	names := make([]string, 25)
	for i := range names {
		names[i] = fmt.Sprintf(`ONLY "public"."a,""%d"`, i)
	}
	list := []flow.Effect{{On: "old", SQL: "LOCK TABLE " + strings.Join(names, ", ") + " IN SHARE MODE"}}
	for name, c := range map[string]struct {
		does []flow.Effect
		want string
	}{
		"object by object": {copies, "TRUNCATE ONLY a0 +29|COPY a0 TO STDOUT +29|ALTER TABLE ONLY a0 ADD PRIMARY KEY (id) +29|TRUNCATE ONLY elsewhere +0"},
		"stage by stage":   {stages, "SET x +0|ANALYZE a0 +24|SET x +0|ANALYZE a0 +24"},
		"few":              {copies[:6], "TRUNCATE ONLY a0 +0|COPY a0 TO STDOUT +0|ALTER TABLE ONLY a0 ADD PRIMARY KEY (id) +0|TRUNCATE ONLY a1 +0|COPY a1 TO STDOUT +0|ALTER TABLE ONLY a1 ADD PRIMARY KEY (id) +0"},
		"a list":           {list, `LOCK TABLE ONLY "public"."a,""0", ONLY "public"."a,""1", ONLY "public"."a,""2", … and 22 more IN SHARE MODE +0`},
	} {
		var got []string
		for _, f := range fold(c.does, false) {
			got = append(got, fmt.Sprintf("%s +%d", f.SQL, f.more))
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s: %s\nwant %s", name, s, c.want)
		}
		var b bytes.Buffer
		if err := PlanText(&b, Plan{Name: "p", Steps: []Step{{ID: "a", Effects: c.does}}}, true); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), "\n       "); n != len(c.does) {
			t.Errorf("%s: full shows %d of %d effects", name, n, len(c.does))
		}
	}
}
