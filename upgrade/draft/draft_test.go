package draft

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/runbook"
)

// TestDraftNamesSchemas: a draft names a few tables without a key, and of many their
// schema; what it writes is read as it was meant.
func TestDraftNamesSchemas(t *testing.T) {
	t.Parallel()
	var tables []schema.Table
	add := func(in string, n int, persistence byte, candidate string) {
		for i := range n {
			tables = append(tables, schema.Table{Schema: in, Name: fmt.Sprintf("%s%d", candidate+"t", i), Kind: 'r', Persistence: persistence, Identity: schema.Identity{Kind: 'd', Candidate: candidate}})
		}
	}
	add("public", 2, 'p', "k")
	add("Api", 499, 'p', "")
	add("app", 40, 'p', "k")
	add("app", 30, 'p', "")
	add("cache", 9, 'u', "k")
	add("public", 1, 'u', "k")
	lines := draftIdentity(tables)
	want := []string{`public.kt0: "index:k"`, `public.kt1: "index:k"`, `"\"Api\".*": full   # 499 tables`, `"app.*": index   # 70 tables`}
	if !slices.Equal(lines, want) {
		t.Errorf("identity: %q, not %q", lines, want)
	}
	file := filepath.Join(t.TempDir(), "crossfade.yaml")
	text := "upgrade: up\nold: {primary: host=old dbname=postgres user=crossfade}\nnew: [{cluster: fresh, primary: host=new dbname=postgres user=crossfade}]\n" +
		"databases:\n  - name: shop\n    identity:\n      " + strings.Join(lines, "\n      ") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rb, _, err := runbook.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	orders := map[string]int{}
	for _, id := range rb.Databases[0].Identities(tables) {
		orders[id.Index]++
	}
	if orders["k"] != 42 || orders[""] != 529 {
		t.Errorf("read as %v", orders)
	}
	if got := draftUnlogged(tables); !slices.Equal(got, []string{"unlogged:cache.*", "unlogged:public.kt0"}) {
		t.Errorf("unlogged: %q", got)
	}
}
