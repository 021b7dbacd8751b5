package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Borrowed is a function that the database did not make itself: of an extension, or
// of the server. New may have another one of its name, which takes other
// arguments; privileges go to that.
type Borrowed struct {
	Schema, Name string
	Arguments    string // as old's server writes them, all identifiers quoted
	Types        string // of the arguments, as the catalogs have them
}

// readBorrowed reads the functions of others that have privileges of their own.
func readBorrowed(ctx context.Context, conn *pgx.Conn) (all []Borrowed, err error) {
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	err = quoteAll(ctx, conn, func() error {
		rows, err := conn.Query(ctx, query("borrowed", version))
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b Borrowed, err error) {
			err = row.Scan(&b.Schema, &b.Name, &b.Arguments, &b.Types)
			return b, err
		})
		return err
	})
	return all, err
}

// arguments stands for a borrowed function's in the SQL of an entry.
const arguments = "arguments"

// borrow makes an entry of privileges on a borrowed function one that takes the
// arguments that new's function has, when it is restored.
func (e *Entry) borrow(all []Borrowed) {
	if e.Type != "ACL" || !strings.HasPrefix(e.Name, "FUNCTION ") && !strings.HasPrefix(e.Name, "PROCEDURE ") {
		return
	}
	var b strings.Builder
	from := 0
	for _, s := range statements(e.SQL) {
		n := max(s.after("ON", "FUNCTION"), s.after("ON", "PROCEDURE"))
		if n < 0 {
			continue
		}
		parts, next := s.name(n)
		if len(parts) != 2 || !s.is(next, "(") {
			return
		}
		end := next
		for depth := 0; end < len(s.tokens); end++ {
			if s.is(end, "(") {
				depth++
			} else if s.is(end, ")") {
				depth--
			}
			if depth == 0 {
				break
			}
		}
		if end == len(s.tokens) {
			return
		}
		open, shut := s.tokens[next].end, s.tokens[end].start
		i := slices.IndexFunc(all, func(b Borrowed) bool {
			return b.Schema == parts[0] && b.Name == parts[1] && b.Arguments == e.SQL[open:shut]
		})
		if i < 0 {
			return
		}
		e.Borrowed = &all[i]
		b.WriteString(e.SQL[from:open] + "$" + arguments)
		from = shut
	}
	if e.Borrowed != nil {
		e.SQL = b.String() + e.SQL[from:]
	}
}

// lent is what fills the entry's $names on the server of conn, apart from secrets.
func (e Entry) lent(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	if e.Borrowed == nil {
		return nil, nil
	}
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, query("lent", version), e.Borrowed.Schema, e.Borrowed.Name, e.Borrowed.Types)
	if err != nil {
		return nil, fmt.Errorf("look for function %s: %w", Name(e.Borrowed.Schema, e.Borrowed.Name), err)
	}
	var takes string
	var same bool
	var found []string
	_, err = pgx.ForEachRow(rows, []any{&takes, &same}, func() error {
		if len(found) == 0 || !same {
			found = append(found, takes)
		}
		if same {
			found = []string{takes}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for function %s: %w", Name(e.Borrowed.Schema, e.Borrowed.Name), err)
	}
	if len(found) != 1 {
		found = []string{e.Borrowed.Arguments} // which the server refuses, by name
	}
	return map[string]string{arguments: found[0]}, nil
}

// lend calls the privileges of want on functions that new has with other
// arguments by what they are called there: of each name one on both sides.
func lend(want, got *Inventory) *Inventory {
	name := func(o Object) string { n, _, _ := strings.Cut(o.Name, "("); return n }
	alone := func(all, others []Object) map[string]int {
		at, many := map[string]int{}, map[string]bool{}
		for i, o := range all {
			if o.Kind != "privileges" || !strings.HasSuffix(o.Name, ")") {
				continue
			}
			if _, there := slices.BinarySearchFunc(others, o, compareObjects); there {
				continue
			}
			_, twice := at[name(o)]
			many[name(o)] = many[name(o)] || twice
			at[name(o)] = i
		}
		for n := range many {
			if many[n] {
				delete(at, n)
			}
		}
		return at
	}
	there := alone(got.Objects, want.Objects)
	out := *want
	for n, i := range alone(want.Objects, got.Objects) {
		j, ok := there[n]
		if !ok {
			continue
		}
		if &out.Objects[0] == &want.Objects[0] {
			out.Objects = slices.Clone(want.Objects)
		}
		out.Objects[i].Name = got.Objects[j].Name
	}
	slices.SortFunc(out.Objects, compareObjects)
	return &out
}

// Revoked is the statement that undoes, on old, what sql, one statement of an
// entry of privileges, gives; "" where it is another one. It lets somebody see to
// privileges that new cannot have.
func (e Entry) Revoked(sql string) string {
	if e.Borrowed != nil {
		sql = strings.ReplaceAll(sql, "$"+arguments, e.Borrowed.Arguments)
	}
	for _, s := range statements(sql) {
		from, to, instead, toward := "GRANT", "TO", "REVOKE", "FROM"
		if s.is(0, "REVOKE") {
			from, to, instead, toward = "REVOKE", "FROM", "GRANT", "TO"
		}
		if !s.is(0, from) {
			continue
		}
		for n := len(s.tokens) - 1; n > 0; n-- {
			if !s.is(n, to) {
				continue
			}
			end := s.end
			if w := s.after("WITH", "GRANT", "OPTION"); w > 0 {
				end = s.tokens[w-4].end
			}
			return instead + sql[s.tokens[0].end:s.tokens[n].start] + toward + strings.TrimSuffix(sql[s.tokens[n].end:end], ";") + ";"
		}
	}
	return ""
}
