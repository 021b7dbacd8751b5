package schema

import (
	"fmt"
	"slices"
	"strings"
)

// Difference is one thing that two databases do not have in common.
type Difference struct {
	Kind, Object string // as in Object
	Property     string // "" where the whole object is on one side only
	Want, Got    string // of the property, on old and on new; secrets are never in it
	Says         string // a sentence
	// Expected is why the difference is as it should be ("the extension's
	// version on new"); "" is a difference to be fixed.
	Expected string
}

// Unexpected keeps the differences that are not expected: what must be none.
func Unexpected(all []Difference) []Difference {
	return slices.DeleteFunc(slices.Clone(all), func(d Difference) bool { return d.Expected != "" })
}

// Diff compares what two databases hold, object by object: want is old, got is
// new. Both must have been read with their Objects. Left out are the tool's
// own objects, publications, subscriptions, and column options that servers
// keep for themselves. Definitions are compared as text; where two majors
// spell the same thing differently, Respell want first. Pure.
func Diff(want, got *Inventory) []Difference {
	var out []Difference
	version := min(want.Version, got.Version)
	i, j := 0, 0
	for i < len(want.Objects) || j < len(got.Objects) {
		var side int
		switch {
		case i == len(want.Objects):
			side = 1
		case j == len(got.Objects):
			side = -1
		default:
			side = compareObjects(want.Objects[i], got.Objects[j])
		}
		switch {
		case side < 0:
			o := want.Objects[i]
			out = append(out, Difference{
				Kind: o.Kind, Object: o.Name, Says: fmt.Sprintf("%s %s is on old only", o.Kind, o.Name), Expected: expectedMissing(o),
			})
			i++
		case side > 0:
			o := got.Objects[j]
			out = append(out, Difference{
				Kind: o.Kind, Object: o.Name, Says: fmt.Sprintf("%s %s is on new only", o.Kind, o.Name), Expected: expectedExtra(o, want),
			})
			j++
		default:
			out = append(out, diffProperties(want.Objects[i], got.Objects[j], version)...)
			i, j = i+1, j+1
		}
	}
	return out
}

func diffProperties(want, got Object, version int) []Difference {
	var out []Difference
	names := make([]string, 0, len(want.Properties))
	for _, p := range slices.Concat(want.Properties, got.Properties) {
		if p.compared() && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	for _, n := range names {
		w, g := want.Property(n), got.Property(n)
		if n == "privileges" && version < 170000 {
			w, g = withoutMaintain(w), withoutMaintain(g)
		}
		if w == g {
			continue
		}
		if want.Kind == "user mapping" { // digests of what may hold a password
			w, g = "set", "set to something else"
		}
		sw, sg := shown(w), shown(g)
		if a, b := shown(want.Property("~"+n)), shown(got.Property("~"+n)); a != b {
			sw, sg = a, b // as people write it
		}
		out = append(out, Difference{
			Kind: want.Kind, Object: want.Name, Property: n, Want: w, Got: g,
			Says:     fmt.Sprintf("%s %s: %s is %s on old and %s on new", want.Kind, want.Name, n, sw, sg),
			Expected: expectedProperty(want, n, w, g, version),
		})
	}
	return out
}

// unquoted is SQL text as a person writes it: without the quotes of identifiers
// that Name would not quote.
func unquoted(sql string) string {
	if !strings.Contains(sql, `"`) {
		return sql
	}
	var b strings.Builder
	from := 0
	lex(sql, func(t token) bool {
		if t.kind == quoted && plain(t.text) {
			b.WriteString(sql[from:t.start] + t.text)
			from = t.end
		}
		return true
	})
	return b.String() + sql[from:]
}

// shown is a value in a sentence.
func shown(v string) string {
	switch v = strings.Join(strings.Fields(unquoted(v)), " "); {
	case v == "":
		return "not set"
	case len([]rune(v)) > 200:
		return string([]rune(v)[:197]) + "…"
	}
	return v
}

// withoutMaintain takes away a privilege that 17 brought: the owner has it
// there, and GRANT ALL of an older dump gives it.
func withoutMaintain(privileges string) string {
	return strings.NewReplacer("MAINTAIN+", "", "MAINTAIN*+", "", "+MAINTAIN*/", "/", "+MAINTAIN/", "/").Replace(privileges)
}

// expectedMissing is why an object may be on old only.
func expectedMissing(o Object) string {
	if o.Kind == "operator" && o.Property("function") == "" {
		return "the operator is a shell that nothing defines, and pg_dump leaves it out"
	}
	if o.Kind == "index" && o.Property("valid") == "false" && o.Property("parent") == "" {
		return "the index is not valid on old, and pg_dump leaves such an index out"
	}
	if o.Kind == "comment" && o.Name == "extension plpgsql" {
		return "a new database has the extension, and its comment, from its template"
	}
	return ""
}

// expectedExtra is why an object may be on new only.
func expectedExtra(o Object, want *Inventory) string {
	if o.Kind == "extension" && o.Name == "plpgsql" || o.Kind == "comment" && o.Name == "extension plpgsql" {
		return "a new database has it from its template"
	}
	if o.Kind == "trigger" && o.Property("definition") == "" && want.Version < 130000 {
		return "below 13 the catalogs do not show the triggers that a partition has from its root"
	}
	return ""
}

// expectedProperty is why a property may differ.
func expectedProperty(o Object, property, want, got string, version int) string {
	switch {
	case o.Kind == "extension" && property == "version":
		return "the version of the extension that new has"
	case property == "populated":
		return "a materialized view is empty until it is refreshed"
	case property == "enabled" && (o.Kind == "trigger" || o.Kind == "event trigger") && (got == "D" && firing(want) || want == "D" && firing(got)):
		return "disabled on the side that applies, until that side takes clients"
	case property == "multirange" && version < 140000:
		return "14 and later have a multirange type for each range type"
	}
	return ""
}

func firing(mode string) bool { return mode == "A" || mode == "R" }
