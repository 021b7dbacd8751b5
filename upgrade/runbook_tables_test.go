package upgrade

import (
	"slices"
	"testing"

	"crossfade/schema"
)

// Wildcards of accept: are those outside of double quotes.
func TestAcceptMatches(t *testing.T) {
	t.Parallel()
	rb := runbookMust(t, runbookHead+`accept: [large-objects, "unlogged:cache.*", "unlogged:public.t?", 'unlogged:public."a*"', "unlogged:public.plain"]`+"\n")
	for _, c := range []struct {
		id, object string
		want       bool
	}{
		{"large-objects", "shop", true},
		{"large-objects", "", true},
		{"unlogged", "", false},
		{"unlogged", "cache.c1", true},
		{"unlogged", `cache."Odd one"`, true},
		{"unlogged", "cached.c1", false},
		{"unlogged", "other.cache.c1", false},
		{"unlogged", "public.t1", true},
		{"unlogged", "public.t", false},
		{"unlogged", "public.t12", false},
		{"unlogged", `public."a*"`, true},
		{"unlogged", `public."ab"`, false},
		{"unlogged", "public.plain", true},
		{"unlogged", "public.plainer", false},
		{"matview-left", "cache.c1", false},
	} {
		got := slices.ContainsFunc(rb.Accept, func(a Accept) bool { return a.ID == c.id && a.matches(c.object) })
		if got != c.want {
			t.Errorf("%s:%s is accepted: %t", c.id, c.object, got)
		}
	}
}

// A pattern of identity: is for those of its tables that have no replica identity
// of their own, are published, and stand nowhere else.
func TestIdentityPatterns(t *testing.T) {
	t.Parallel()
	rb := runbookMust(t, runbookHead+`databases: [{name: shop, exclude: ["api.gone"], identity: {"api.*": full, public.log: full, api.named: "index:by_k"}}]`+"\n")
	table := func(name string, kind byte, usable bool) schema.Table {
		return schema.Table{Schema: "api", Name: name, Kind: 'r', Persistence: 'p', Identity: schema.Identity{Kind: kind, Usable: usable}}
	}
	unlogged := table("unlogged", 'd', false)
	unlogged.Persistence = 'u'
	other := table("bare", 'd', false)
	other.Schema = "public"
	var got []string
	for _, id := range rb.Databases[0].identities([]schema.Table{
		table("bare", 'd', false), table("full", 'f', true), table("nothing", 'n', false), table("keyed", 'd', true), table("indexed", 'i', true),
		table("named", 'd', false), table("gone", 'd', false), unlogged, other,
	}) {
		what := "full"
		if id.Index != "" {
			what = id.Index
		}
		got = append(got, id.Table.String()+" "+what)
	}
	slices.Sort(got)
	want := []string{"api.bare full", "api.full full", "api.named by_k", "api.nothing full", "public.log full"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
