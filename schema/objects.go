package schema

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Object is one comparable thing of a database.
type Object struct {
	Kind string // table, column, constraint, index, function, comment …
	Name string // qualified, as Name writes it; of a constraint "name on table", of a function with the types it takes
	// Properties are what is compared, sorted by name; what is absent or the
	// default is left out.
	Properties []Property
}

// Property is one fact about an object. Names and types in it are as the
// catalogs have them; expressions and definitions are as the server prints them,
// with every identifier quoted. Where Name begins with a ~ it is not compared: it
// is how the server writes the property of that name, in its own SQL.
type Property struct{ Name, Value string }

func (p Property) compared() bool { return p.Name[0] != '~' }

// Property returns the value of the property, or "".
func (o Object) Property(name string) string {
	i, ok := slices.BinarySearchFunc(o.Properties, name, func(p Property, n string) int { return cmp.Compare(p.Name, n) })
	if !ok {
		return ""
	}
	return o.Properties[i].Value
}

func compareObjects(a, b Object) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// objectQueries are the files that together read every object of a database.
var objectQueries = []string{
	"objects_relations", "objects_columns", "objects_constraints", "objects_indexes",
	"objects_rules", "objects_functions", "objects_types", "objects_other",
}

// quoteAll makes the session quote every identifier in what it prints, while f
// runs: a word that is a key word of one major only is then read by any.
func quoteAll(ctx context.Context, conn *pgx.Conn, f func() error) error {
	if err := pg.Exec(ctx, conn, "SET quote_all_identifiers = on"); err != nil {
		return err
	}
	if err := f(); err != nil {
		if conn.IsClosed() || conn.PgConn().TxStatus() == 'E' {
			return err // what was set goes with the transaction
		}
		return joinErr(err, pg.Exec(context.WithoutCancel(ctx), conn, "SET quote_all_identifiers = off"))
	}
	return pg.Exec(ctx, conn, "SET quote_all_identifiers = off")
}

// readsAgain is how often the objects are read again when the server meets one that
// was dropped meanwhile: its functions that write definitions do not see the query's
// snapshot, and find a row gone (XX000) when DROP or REINDEX CONCURRENTLY has ended.
const readsAgain = 5

func readObjects(ctx context.Context, conn *pgx.Conn, version int) (objects []Object, err error) {
	err = quoteAll(ctx, conn, func() (err error) {
		for range 1 + readsAgain {
			objects, err = queryObjects(ctx, conn, version)
			if pg.SQLState(err) != "XX000" || conn.PgConn().TxStatus() != 'I' {
				break
			}
		}
		return err
	})
	return objects, err
}

func queryObjects(ctx context.Context, conn *pgx.Conn, version int) ([]Object, error) {
	var objects []Object
	// Of many tables most say the same: it is kept once.
	said := map[string]string{}
	once := func(s string) string {
		if len(s) > 24 {
			return s
		}
		if _, ok := said[s]; !ok {
			said[s] = s
		}
		return said[s]
	}
	rare, err := readRare(ctx, conn, version)
	if err != nil {
		return nil, err
	}
	for _, q := range objectQueries {
		rows, err := conn.Query(ctx, queryWith(q, version, rare))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q, err)
		}
		var kind, name *string
		var pairs []*string
		_, err = pgx.ForEachRow(rows, []any{&kind, &name, &pairs}, func() error {
			if kind == nil || name == nil {
				return fmt.Errorf("the catalogs have an object without a name: kind %s, properties %s", optional(kind), all(pairs))
			}
			o, n := Object{Kind: *kind, Name: *name}, 0
			for i := 1; i < len(pairs); i += 2 {
				if pairs[i] != nil {
					n++
				}
			}
			o.Kind, o.Properties = once(o.Kind), make([]Property, 0, n)
			for i := 0; i+1 < len(pairs); i += 2 {
				if pairs[i+1] != nil {
					o.Properties = append(o.Properties, Property{once(*pairs[i]), once(*pairs[i+1])})
				}
			}
			slices.SortFunc(o.Properties, func(a, b Property) int { return cmp.Compare(a.Name, b.Name) })
			objects = append(objects, o)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q, err)
		}
	}
	slices.SortFunc(objects, compareObjects)
	return merge(objects), nil
}

// readRare reads which kinds of objects that most databases have none of are
// there: the files of objectQueries describe those alone.
func readRare(ctx context.Context, conn *pgx.Conn, version int) (map[string]bool, error) {
	rows, err := conn.Query(ctx, query("rare", version))
	if err != nil {
		return nil, fmt.Errorf("rare: %w", err)
	}
	kinds, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("rare: %w", err)
	}
	rare := map[string]bool{}
	for _, k := range kinds {
		rare[k] = true
	}
	return rare, nil
}

func optional(s *string) string {
	if s == nil {
		return "NULL"
	}
	return *s
}

func all(some []*string) string {
	out := make([]string, len(some))
	for i, s := range some {
		out[i] = optional(s)
	}
	return strings.Join(out, ", ")
}

// merge makes one object of those with the same kind and name: a composite
// type has a row in pg_class and one in pg_type.
func merge(objects []Object) []Object {
	out := objects[:0]
	for _, o := range objects {
		if n := len(out); n > 0 && compareObjects(out[n-1], o) == 0 {
			last := &out[n-1]
			for _, p := range o.Properties {
				if last.Property(p.Name) == "" {
					last.Properties = append(last.Properties, p)
					slices.SortFunc(last.Properties, func(a, b Property) int { return cmp.Compare(a.Name, b.Name) })
				}
			}
			continue
		}
		out = append(out, o)
	}
	return out
}

// Fingerprint is a hash of Objects: equal as long as nobody changes the
// schema. It is not equal on both sides of an upgrade, whose majors spell
// definitions differently.
func (i *Inventory) Fingerprint() string {
	h := sha256.New()
	for _, o := range i.Objects {
		put(h, o.Kind, o.Name)
		for _, p := range o.Properties {
			if p.Name != "populated" && p.compared() {
				put(h, p.Name, p.Value)
			}
		}
		put(h, "")
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

func put(h io.Writer, parts ...string) {
	for _, p := range parts {
		// The length in front keeps "a","bc" from being "ab","c"; a hash never fails.
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
}
