package runbook

import (
	"slices"
	"testing"

	"crossfade/schema"
)

// Wildcards of accept: are those outside of double quotes.
func TestAcceptMatches(t *testing.T) {
	t.Parallel()
	rb := must(t, head+`accept: [large-objects, "unlogged:cache.*", "unlogged:public.t?", 'unlogged:public."a*"', "unlogged:public.plain"]`+"\n")
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
		got := slices.ContainsFunc(rb.Accept, func(a Accept) bool { return a.ID == c.id && a.Matches(c.object) })
		if got != c.want {
			t.Errorf("%s:%s is accepted: %t", c.id, c.object, got)
		}
	}
}

// A pattern of identity: is for those of its tables that have no replica identity
// of their own, are published, and stand nowhere else. What it orders is the same
// when prepare has set it.
func TestIdentityPatterns(t *testing.T) {
	t.Parallel()
	table := func(name string, kind byte, usable bool) schema.Table {
		return schema.Table{Schema: "api", Name: name, Kind: 'r', Persistence: 'p', Identity: schema.Identity{Kind: kind, Usable: usable}}
	}
	served := func(name string, kind byte, usable bool) schema.Table {
		t := table(name, kind, usable)
		if kind == 'i' {
			t.Identity.Index = "serves"
		} else {
			t.Identity.Candidate = "serves"
		}
		return t
	}
	unlogged := table("unlogged", 'd', false)
	unlogged.Persistence = 'u'
	other := table("bare", 'd', false)
	other.Schema = "public"
	tables := []schema.Table{
		table("bare", 'd', false), table("full", 'f', true), table("nothing", 'n', false), table("keyed", 'd', true), served("indexed", 'i', true),
		served("candidate", 'd', false), served("wasteful", 'f', true), table("named", 'd', false), table("gone", 'd', false), unlogged, other,
	}
	for _, c := range []struct {
		pattern string
		want    []string
	}{
		{"full", []string{"api.bare full", "api.candidate full", "api.full full", "api.named by_k", "api.nothing full", "api.wasteful full", "public.log full"}},
		{"index", []string{"api.bare full", "api.candidate serves", "api.full full", "api.indexed serves", "api.named by_k", "api.nothing full", "api.wasteful full", "public.log full"}},
	} {
		rb := must(t, head+`databases: [{name: shop, exclude: ["api.gone"], identity: {"api.*": `+c.pattern+`, public.log: full, api.named: "index:by_k"}}]`+"\n")
		orders := func(tables []schema.Table) (got []string, set []schema.Table) {
			set = slices.Clone(tables)
			for _, id := range rb.Databases[0].Identities(tables) {
				what, kind := "full", byte('f')
				if id.Index != "" {
					what, kind = id.Index, 'i'
				}
				got = append(got, id.Table.String()+" "+what)
				for i := range set {
					if set[i].Schema == id.Table.Schema && set[i].Name == id.Table.Name {
						set[i].Identity = schema.Identity{Kind: kind, Index: id.Index, Usable: true}
					}
				}
			}
			slices.Sort(got)
			return got, set
		}
		got, set := orders(tables)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, not %q", c.pattern, got, c.want)
		}
		if got, _ = orders(set); !slices.Equal(got, c.want) {
			t.Errorf("%s, when it is set: %q, not %q", c.pattern, got, c.want)
		}
	}
}
