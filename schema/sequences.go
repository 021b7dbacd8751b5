package schema

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Sequence is a user sequence: its parameters and where it stands.
type Sequence struct {
	OID          uint32
	Schema, Name string
	Owner        string
	Type         string // bigint, integer, smallint
	Increment    int64  // never 0; negative counts down
	Min, Max     int64
	Start, Cache int64
	Cycle        bool
	Persistence  byte // 'p', 'u'
	// Last is last_value, nil where it may not be read. Called is is_called:
	// where it is false, the next value is Last itself.
	Last   *int64
	Called bool

	// Only Read fills these: the table and column that own the sequence (0 is
	// none), the column's qualified and quoted name, whether it is an identity
	// column, and the extension that the sequence is a member of.
	Table     uint32
	Column    int16
	OwnedBy   string
	Identity  bool
	Extension string
}

// String is schema.sequence as a person reads it.
func (s Sequence) String() string { return Name(s.Schema, s.Name) }

// SQL is schema.sequence, quoted.
func (s Sequence) SQL() string { return pg.Ident(s.Schema, s.Name) }

// uncalledBatch is how many sequences are read by one statement where that
// takes a lock on each: well below the smallest lock table.
const uncalledBatch = 500

// ReadSequences reads all user sequences, whatever state they are in. It takes
// one round trip, and below 18 a second one where some are not called: these
// are read from the relation, in statements of 500, so that no transaction
// holds many locks. conn should not be in a transaction.
func ReadSequences(ctx context.Context, conn *pgx.Conn) ([]Sequence, error) {
	return readSequences(ctx, conn, true)
}

// ValuesBatch is how many sequences ReadValues reads by one statement, which
// locks each until it ends. The check lock-table counts as many beside the tables
// that a cutover locks.
const ValuesBatch = 1000

// ReadValues reads where sequences stand now that an earlier ReadSequences of the
// same server has found: Last and Called. What there is, and its parameters,
// stay as they were known. It is what little is read while clients wait.
func ReadValues(ctx context.Context, conn *pgx.Conn, version int, known []Sequence) ([]Sequence, error) {
	now := slices.Clone(known)
	var readable, uncalled []int
	for n, s := range now {
		if s.Last != nil {
			readable = append(readable, n)
		}
	}
	for part := range slices.Chunk(readable, ValuesBatch) {
		oids, lasts, calleds := make([]uint32, len(part)), make([]int64, len(part)), make([]bool, len(part))
		for i, n := range part {
			oids[i], lasts[i], calleds[i] = now[n].OID, *now[n].Last, now[n].Called
		}
		rows, err := conn.Query(ctx, query("sequence_values", version), oids, lasts, calleds)
		if err != nil {
			return nil, fmt.Errorf("read where sequences stand: %w", err)
		}
		var at int
		var last *int64
		var called bool
		_, err = pgx.ForEachRow(rows, []any{&at, &last, &called}, func() error {
			n := part[at-1]
			now[n].Last, now[n].Called = last, called
			if last == nil {
				uncalled = append(uncalled, n)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read where sequences stand: %w", err)
		}
	}
	return now, readUncalled(ctx, conn, now, uncalled)
}

// readSequences is ReadSequences, with or without those that are not called.
func readSequences(ctx context.Context, conn *pgx.Conn, all bool) ([]Sequence, error) {
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, query("sequences", version))
	if err != nil {
		return nil, fmt.Errorf("read sequences: %w", err)
	}
	var uncalled []int
	n := 0
	sequences, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Sequence, err error) {
		var persistence string
		var readable bool
		var kind int64
		err = row.Scan(&s.OID, &s.Schema, &s.Name, &s.Owner, &kind, &s.Increment, &s.Min, &s.Max, &s.Start, &s.Cache, &s.Cycle,
			&persistence, &readable, &s.Last, &s.Called)
		s.Type = map[int64]string{20: "bigint", 23: "integer", 21: "smallint"}[kind]
		s.Persistence = letter(persistence)
		if all && readable && s.Last == nil {
			uncalled = append(uncalled, n)
		}
		n++
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read sequences: %w", err)
	}
	if err := readUncalled(ctx, conn, sequences, uncalled); err != nil {
		return nil, err
	}
	slices.SortFunc(sequences, func(a, b Sequence) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
	})
	return sequences, nil
}

func (i *Inventory) readSequences(ctx context.Context, conn *pgx.Conn, want Filter) (err error) {
	if i.Sequences, err = readSequences(ctx, conn, !want.NoUncalled); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, query("sequence_owners", i.Version))
	if err != nil {
		return err
	}
	at := make(map[uint32]*Sequence, len(i.Sequences))
	for n := range i.Sequences {
		at[i.Sequences[n].OID] = &i.Sequences[n]
	}
	var oid uint32
	var o Sequence
	_, err = pgx.ForEachRow(rows, []any{&oid, &o.Table, &o.Column, &o.Identity, &o.OwnedBy, &o.Extension}, func() error {
		s := at[oid]
		switch {
		case s == nil:
		case o.Extension != "":
			s.Extension = o.Extension
		default:
			s.Table, s.Column, s.Identity, s.OwnedBy = o.Table, o.Column, o.Identity, o.OwnedBy
		}
		return nil
	})
	return err
}

func readUncalled(ctx context.Context, conn *pgx.Conn, sequences []Sequence, which []int) error {
	for part := range slices.Chunk(which, uncalledBatch) {
		reads := make([]string, len(part))
		for i, n := range part {
			reads[i] = fmt.Sprintf("SELECT %d, last_value, is_called FROM %s", n, sequences[n].SQL())
		}
		var n int
		var last int64
		var called bool
		err := pg.Simple(ctx, conn, strings.Join(reads, " UNION ALL "), []any{&n, &last, &called}, func() error {
			value := last
			sequences[n].Last, sequences[n].Called = &value, called
			return nil
		})
		if err != nil {
			return fmt.Errorf("read sequences that are not called: %w", err)
		}
	}
	return nil
}

func serverVersion(ctx context.Context, conn *pgx.Conn) (version int, err error) {
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return 0, fmt.Errorf("read the server's version: %w", err)
	}
	return version, nil
}

// steps is how many times s can still advance before it is exhausted, or
// before it wraps around.
func (s Sequence) steps() *big.Int {
	left := new(big.Int)
	if s.Increment > 0 {
		left.Sub(big.NewInt(s.Max), big.NewInt(*s.Last))
	} else {
		left.Sub(big.NewInt(*s.Last), big.NewInt(s.Min))
	}
	if left.Sign() < 0 {
		return new(big.Int)
	}
	return left.Div(left, new(big.Int).Abs(big.NewInt(s.Increment)))
}

// Ahead is where the other side's sequence is set so that it hands out nothing
// that this one did: margin steps of the increment further on, never over its
// bounds, and never more than half of the steps that are left, so that a
// margin alone exhausts no sequence. A sequence that was not called is taken
// over as it is. Last must not be nil.
func (s Sequence) Ahead(margin int64) (value int64, called bool) {
	if !s.Called || margin <= 0 || s.Increment == 0 {
		return *s.Last, s.Called
	}
	steps := big.NewInt(margin)
	if half := new(big.Int).Rsh(s.steps(), 1); half.Cmp(steps) < 0 {
		steps = half
	}
	at := steps.Mul(steps, big.NewInt(s.Increment))
	return at.Add(at, big.NewInt(*s.Last)).Int64(), true
}

// Used is the part of the range that is used up, 0 to 1; 0 for a sequence that
// cycles or could not be read.
func (s Sequence) Used() float64 {
	if s.Last == nil || s.Cycle || !s.Called {
		return 0
	}
	all := float64(s.Max) - float64(s.Min)
	used := float64(*s.Last) - float64(s.Min)
	if s.Increment < 0 {
		used = float64(s.Max) - float64(*s.Last)
	}
	if all <= 0 {
		return 1
	}
	return math.Max(0, math.Min(1, used/all))
}

// SetSequences is one statement that sets every sequence that could be read,
// margin steps ahead (Sequence.Ahead), and how many these are. It is "" for
// none. The session must not be read-only.
func SetSequences(from []Sequence, margin int64) (sql string, n int) {
	var b strings.Builder
	for _, s := range from {
		if s.Last == nil {
			continue
		}
		if n > 0 {
			b.WriteString(", ")
		}
		n++
		value, called := s.Ahead(margin)
		fmt.Fprintf(&b, "(%s, '%d'::int8, %t)", pg.Literal(s.SQL()), value, called)
	}
	if n == 0 {
		return "", 0
	}
	return "SELECT count(setval(v.name::regclass, v.value, v.called)) FROM (VALUES " + b.String() + ") v(name, value, called)", n
}

// next is the value that the sequence hands out next, or would if it had no
// bounds.
func (s Sequence) next() *big.Int {
	n := big.NewInt(*s.Last)
	if s.Called {
		n.Add(n, big.NewInt(s.Increment))
	}
	return n
}

// Stale are the sequences of want that got must be set to again: it does not
// have them, cannot be read there, would hand out a value that was handed out
// already, or is further ahead than margin steps.
func Stale(want, got []Sequence, margin int64) []Sequence {
	type name struct{ schema, name string }
	have := make(map[name]Sequence, len(got))
	for _, s := range got {
		have[name{s.Schema, s.Name}] = s
	}
	var stale []Sequence
	for _, w := range want {
		if w.Last == nil {
			continue
		}
		g, ok := have[name{w.Schema, w.Name}]
		if !ok || g.Last == nil || g.Increment != w.Increment || !within(w, g, margin) {
			stale = append(stale, w)
		}
	}
	return stale
}

// Passed are the sequences of closed that have come beyond where those of open
// stand, so that open would hand out again what closed has: open goes on after them.
// Sequences that cycle hand values out again by themselves and are left alone, and
// so are those that open lacks.
func Passed(closed, open []Sequence) []Sequence {
	type name struct{ schema, name string }
	at := make(map[name]Sequence, len(open))
	for _, s := range open {
		at[name{s.Schema, s.Name}] = s
	}
	var passed []Sequence
	for _, c := range closed {
		o, ok := at[name{c.Schema, c.Name}]
		if !ok || c.Last == nil || o.Last == nil || c.Cycle || o.Cycle {
			continue
		}
		gap := c.next()
		gap.Sub(gap, o.next())
		if gap.Sign() != 0 && (gap.Sign() > 0) == (c.Increment > 0) {
			passed = append(passed, c)
		}
	}
	return passed
}

// within says whether got stands at want or up to margin steps ahead of it.
func within(want, got Sequence, margin int64) bool {
	from, at := want.next(), got.next()
	gap := at.Sub(at, from)
	if want.Increment < 0 {
		gap.Neg(gap)
	}
	most := new(big.Int).Mul(big.NewInt(max(margin, 0)), new(big.Int).Abs(big.NewInt(want.Increment)))
	return gap.Sign() >= 0 && gap.Cmp(most) <= 0
}
