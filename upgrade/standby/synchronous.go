package standby

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Quorum is a value of synchronous_standby_names.
type Quorum struct {
	Any   bool // any Num of Names; else the first Num that are there
	Num   int  // 0: none is synchronous
	Names []string
}

var quorumToken = regexp.MustCompile(`^\s*(?:([A-Za-z_\x{80}-\x{10FFFF}][\w$\x{80}-\x{10FFFF}]*)|([0-9]+)|"((?:[^"]|"")+)"|([(),*]))`)

// ParseQuorum reads a value of synchronous_standby_names as PostgreSQL does.
func ParseQuorum(s string) (Quorum, error) {
	type token struct {
		text   string
		quoted bool
	}
	var tokens []token
	for rest := s; strings.TrimSpace(rest) != ""; {
		m := quorumToken.FindStringSubmatch(rest)
		if m == nil {
			return Quorum{}, fmt.Errorf("synchronous_standby_names %q: not understood from %q on", s, strings.TrimSpace(rest))
		}
		tokens = append(tokens, token{m[1] + m[2] + strings.ReplaceAll(m[3], `""`, `"`) + m[4], m[3] != ""})
		rest = rest[len(m[0]):]
	}
	q := Quorum{Num: 1}
	if len(tokens) == 0 {
		return Quorum{}, nil
	}
	at := 0
	word := func(n int) string {
		if n < len(tokens) && !tokens[n].quoted {
			return tokens[n].text
		}
		return ""
	}
	if _, err := strconv.Atoi(word(1)); err == nil && (strings.EqualFold(word(0), "any") || strings.EqualFold(word(0), "first")) {
		q.Any, at = strings.EqualFold(word(0), "any"), 1
	}
	if n, err := strconv.Atoi(word(at)); err == nil && word(at+1) == "(" {
		if q.Num, at = n, at+2; word(len(tokens)-1) != ")" {
			return Quorum{}, fmt.Errorf("synchronous_standby_names %q: the list is not closed", s)
		}
		tokens = tokens[:len(tokens)-1]
	}
	for n := at; n < len(tokens); n++ {
		if (n-at)%2 == 1 {
			if word(n) != "," {
				return Quorum{}, fmt.Errorf("synchronous_standby_names %q: no comma before %q", s, tokens[n].text)
			}
			continue
		}
		if !tokens[n].quoted && strings.ContainsAny(word(n), "(),") {
			return Quorum{}, fmt.Errorf("synchronous_standby_names %q: a name is missing at %q", s, tokens[n].text)
		}
		q.Names = append(q.Names, tokens[n].text)
	}
	if len(q.Names) == 0 || q.Num < 1 {
		return Quorum{}, fmt.Errorf("synchronous_standby_names %q names nobody", s)
	}
	return q, nil
}

// Lacks is how many more receivers must stream for commits not to wait; 0 is
// none. As PostgreSQL does, names are compared without case and * is everybody.
func (q Quorum) Lacks(states []State) int {
	there := 0
	for _, s := range states {
		if s.State != "streaming" {
			continue
		}
		for _, name := range q.Names {
			if name == "*" || strings.EqualFold(name, s.ApplicationName) {
				there++
				break
			}
		}
	}
	return max(0, q.Num-there)
}

// Synchronous is the value of synchronous_standby_names in force, and what
// ALTER SYSTEM has set it to; nil where it has not. Remove is given the second.
func Synchronous(ctx context.Context, conn *pgx.Conn) (now string, altered *string, err error) {
	err = conn.QueryRow(ctx, `
		SELECT current_setting('synchronous_standby_names'),
		       (SELECT setting FROM pg_file_settings WHERE name = 'synchronous_standby_names' AND sourcefile LIKE '%postgresql.auto.conf' ORDER BY seqno DESC LIMIT 1)`).
		Scan(&now, &altered)
	if err != nil {
		return "", nil, fmt.Errorf("read synchronous_standby_names: %w", err)
	}
	return now, altered, nil
}

// alter are the effects that set synchronous_standby_names on a side.
func alter(on string, value *string) []flow.Effect {
	sql := "ALTER SYSTEM RESET synchronous_standby_names"
	if value != nil {
		sql = "ALTER SYSTEM SET synchronous_standby_names = " + pg.Literal(*value)
	}
	return []flow.Effect{{On: on, SQL: sql}, {On: on, SQL: "SELECT pg_reload_conf()"}}
}

// pollSetting is how often it is asked whether a setting is in force.
const pollSetting = 50 * time.Millisecond

var plainSync = regexp.MustCompile(`\A[a-z_][a-z0-9_]*\z`)

// String is q as synchronous_standby_names takes it.
func (q Quorum) String() string {
	if q.Num == 0 {
		return ""
	}
	names := make([]string, len(q.Names))
	for i, name := range q.Names {
		if names[i] = name; name != "*" && (!plainSync.MatchString(name) || name == "any" || name == "first") {
			names[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		}
	}
	how := "FIRST"
	if q.Any {
		how = "ANY"
	}
	return fmt.Sprintf("%s %d (%s)", how, q.Num, strings.Join(names, ", "))
}

// Without is a value of synchronous_standby_names that can be met without some
// standbys: the value itself where enough others are in it, else as many as are
// left. A value that is not understood, or means everybody, stays as it is.
func Without(value string, gone []string) string {
	q, err := ParseQuorum(value)
	if err != nil || q.Num == 0 || slices.Contains(q.Names, "*") {
		return value
	}
	left := Quorum{Any: q.Any}
	for _, name := range q.Names {
		if !slices.ContainsFunc(gone, func(g string) bool { return strings.EqualFold(g, name) }) {
			left.Names = append(left.Names, name)
		}
	}
	if len(left.Names) >= q.Num {
		return value
	}
	left.Num = len(left.Names)
	return left.String()
}

// meanwhile is what commits wait for until After has built its nodes.
func (o Options) meanwhile() string {
	if o.SynchronousStandbyNames == nil {
		return ""
	}
	return Without(*o.SynchronousStandbyNames, o.successors())
}

// synchronous names the standbys that commits wait for.
func (o Options) synchronous(want string) flow.Step {
	s := flow.Step{ID: "standby/synchronous", Title: "Let commits on " + o.side() + " wait for " + want, Does: alter(o.side(), &want)}
	if want == "" {
		s.Title = "Let commits on " + o.side() + " wait for no standby"
	}
	if full := *o.SynchronousStandbyNames; want != full {
		s.Title += ", until " + full + " can be met"
	}
	s.Done = func(ctx context.Context) (done bool, err error) {
		err = with(ctx, o.Primary, func(conn *pgx.Conn) error {
			now, _, err := Synchronous(ctx, conn)
			done = now == want
			return err
		})
		return done, err
	}
	s.Do = func(ctx context.Context, _ *flow.Turn) error {
		q, err := ParseQuorum(want)
		if err != nil {
			return err
		}
		return with(ctx, o.Primary, func(conn *pgx.Conn) error {
			if err := o.mayDemand(ctx, conn, q, want); err != nil {
				return err
			}
			return o.set(ctx, conn, s.Does, &want)
		})
	}
	return s
}

// mayDemand refuses what would let every commit hang at once, or wait for a
// subscription.
func (o Options) mayDemand(ctx context.Context, conn *pgx.Conn, q Quorum, want string) error {
	states, err := States(ctx, conn, o.side())
	if err != nil {
		return err
	}
	var standbys []State
	var streams []string
	for _, s := range states {
		if !s.Logical {
			standbys = append(standbys, s)
			streams = append(streams, s.ApplicationName+" ("+s.State+")")
			continue
		}
		if q.Num > 0 && (Quorum{Num: 1, Names: q.Names}).Lacks([]State{s}) == 0 {
			return fmt.Errorf("synchronous_standby_names %q also means %s on %s, which is a logical receiver: commits would wait for a subscription; list the standbys by name",
				want, s.ApplicationName, o.side())
		}
	}
	if n := q.Lacks(standbys); n > 0 {
		if len(streams) == 0 {
			streams = []string{"nobody"}
		}
		return fmt.Errorf("synchronous_standby_names %q was not set on %s: %d more of them would have to stream, or every commit would hang; it sees %s",
			want, o.side(), n, strings.Join(streams, ", "))
	}
	return nil
}

// set executes the two effects and sees the value in force.
func (o Options) set(ctx context.Context, conn *pgx.Conn, does []flow.Effect, want *string) error {
	for _, e := range does {
		if err := pg.Exec(ctx, conn, e.SQL); err != nil {
			return &pg.Error{Doing: pg.Brief(e.SQL), On: o.Primary.String(), Err: err}
		}
	}
	if want == nil {
		return nil
	}
	return pg.Poll(ctx, pollSetting, "synchronous_standby_names to be in force", func(ctx context.Context) (bool, error) {
		now, altered, err := Synchronous(ctx, conn)
		if err == nil && altered != nil && *altered != *want {
			err = errors.New("somebody else sets synchronous_standby_names on " + o.side())
		}
		return now == *want, err
	})
}

// synchronousBack puts back what stood there before.
func (o Options) synchronousBack() flow.Step {
	s := flow.Step{ID: "standby/synchronous", Title: "Put back what commits on " + o.side() + " waited for", Does: alter(o.side(), o.SynchronousBefore)}
	s.Done = func(ctx context.Context) (done bool, err error) {
		err = with(ctx, o.Primary, func(conn *pgx.Conn) error {
			_, altered, err := Synchronous(ctx, conn)
			ours := altered != nil && (*altered == *o.SynchronousStandbyNames || *altered == o.meanwhile())
			same := altered != nil && o.SynchronousBefore != nil && *altered == *o.SynchronousBefore
			// What is not ours is somebody else's.
			done = !ours || same
			return err
		})
		return done, err
	}
	s.Do = func(ctx context.Context, _ *flow.Turn) error {
		return with(ctx, o.Primary, func(conn *pgx.Conn) error { return o.set(ctx, conn, s.Does, o.SynchronousBefore) })
	}
	return s
}
