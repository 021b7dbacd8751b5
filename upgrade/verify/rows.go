package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"
)

// version is a row of one side in one look: what it holds and where it lies.
// Without an identity it is all rows of one text, and what it holds is their
// number.
type version struct {
	holds, lies string
	columns     []string // a hash of each; empty where not asked for
}

// state is a row on both sides in one look; nil is not there.
type state struct{ lead, follow *version }

func (s state) equal() bool {
	if s.lead == nil || s.follow == nil {
		return s.lead == s.follow
	}
	return s.lead.holds == s.follow.holds
}

// verdict on a row.
type verdict int

const (
	undecided verdict = iota
	equal
	different
	moving // given up
)

// suspect is a row that was seen to differ.
type suspect struct {
	key  []string
	hash int64 // of the key
	now  state

	looks  int
	proven int // proofs in a row that it differs
	// In every look so far it was missing on that side, and only there.
	neverLead, neverFollow bool
	doubtful               bool // one of the looks proved nothing
	verdict                verdict
}

// see judges the suspect by one more look. stuck: the look proves nothing
// against it. limit is how many looks it gets.
//
// The snapshots of looks k and k+1 lie in this order: lead k, follow k, lead
// k+1, follow k+1, and what follow shows is what lead was at some moment
// between its two neighbours. So if lead has the same version in k and k+1,
// follow had to show it in k; and if follow has the same version in k and k+1,
// lead had to show it in k+1.
func (s *suspect) see(now state, stuck bool, limit int) verdict {
	before := s.now
	first := s.looks == 0
	s.now = now
	s.looks++
	s.neverLead = (first || s.neverLead) && now.lead == nil
	s.neverFollow = (first || s.neverFollow) && now.follow == nil
	s.doubtful = s.doubtful || stuck
	if now.equal() {
		s.verdict = equal
		return equal
	}
	switch {
	case first:
	case !proves(before, now):
		s.proven = 0
	case !stuck:
		s.proven++
	}
	s.verdict = undecided
	switch {
	case s.proven >= proofs:
		s.verdict = different
	case (s.neverLead || s.neverFollow) && !s.doubtful:
		// A row that comes and goes all the time would be seen missing on the
		// same side in every look once in 4^20 cases.
		if s.looks >= 2*limit {
			s.verdict = different
		}
	case s.looks >= limit:
		s.verdict = moving
	}
	return s.verdict
}

// proves says whether two looks in a row prove that a row differs.
func proves(before, now state) bool {
	if before.lead != nil && now.lead != nil && before.lead.lies == now.lead.lies &&
		(before.follow == nil || before.follow.holds != now.lead.holds) {
		return true
	}
	return before.follow != nil && now.follow != nil && before.follow.lies == now.follow.lies &&
		(now.lead == nil || now.lead.holds != now.follow.holds)
}

// how says how the row differs.
func (s *suspect) how(q queries, lead, follow string) string {
	a, b := s.now.lead, s.now.follow
	switch {
	case !q.keyed():
		return fmt.Sprintf("%s on %s, %s on %s", number(a), lead, number(b), follow)
	case a == nil:
		return "is on " + follow + " only"
	case b == nil:
		return "is missing on " + follow
	}
	var columns []string
	for i, c := range q.columns {
		if i < len(a.columns) && i < len(b.columns) && a.columns[i] != b.columns[i] {
			columns = append(columns, c.Name)
		}
	}
	if len(columns) == 0 {
		return "differs"
	}
	return "differs in " + strings.Join(columns, ", ")
}

func number(v *version) string {
	if v == nil {
		return "0"
	}
	return v.holds
}

// rows is a table that is compared row by row.
type rows struct {
	q        queries
	suspects map[string]*suspect // by key
	looks    int
	limit    int
	// partial: there were more rows in differing buckets than are looked at at
	// once.
	partial bool
	spent   bool // there will be no further look
}

// bigWithoutKey is the size from which a table without an identity, which has
// to be read as a whole in each look, gets only as many looks as a proof takes.
const bigWithoutKey = 1 << 30

func newRows(s *subject) *rows {
	r := &rows{q: s.q, suspects: map[string]*suspect{}, limit: patience}
	if !s.q.keyed() && s.table.Bytes > bigWithoutKey {
		r.limit = proofs + 1
	}
	return r
}

// few says whether the next look reads only the suspects. Where rows have no
// identity one may change into another, so they are all read again.
func (r *rows) few() bool { return r.looks > 0 && r.q.keyed() && len(r.open()) > 0 }

// open are the suspects without a verdict.
func (r *rows) open() []*suspect {
	var open []*suspect
	for _, s := range r.suspects {
		if s.verdict == undecided {
			open = append(open, s)
		}
	}
	slices.SortFunc(open, bySuspect)
	return open
}

// bySuspect orders by key, numbers by their size.
func bySuspect(a, b *suspect) int {
	natural := func(x, y string) int {
		if whole(x) && whole(y) {
			return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
		}
		return cmp.Compare(x, y)
	}
	return cmp.Or(slices.CompareFunc(a.key, b.key, natural), cmp.Compare(a.hash, b.hash))
}

// whole says whether s is a number without sign, point and leading zero.
func whole(s string) bool { return strings.Trim(s, "0123456789") == "" && !strings.HasPrefix(s, "0") }

// found is a row of one side as a query returns it.
type found struct {
	key  []string
	hash int64
	version
}

// ident is what tells one row from another in suspects.
func (f *found) ident(keyed bool) string {
	if !keyed {
		return fmt.Sprint(f.hash)
	}
	return strings.Join(f.key, "\x00")
}

// see takes in one look at the rows in question: all open suspects, or every
// row of the buckets that differ.
func (r *rows) see(lead, follow []found, stuck bool) {
	r.looks++
	states := map[string]state{}
	keys := map[string]*found{}
	for i, side := range [][]found{lead, follow} {
		for n := range side {
			f := &side[n]
			id := f.ident(r.q.keyed())
			st := states[id]
			if i == 0 {
				st.lead = &f.version
			} else {
				st.follow = &f.version
			}
			states[id], keys[id] = st, f
		}
	}
	for id, st := range states {
		if r.suspects[id] == nil && !st.equal() {
			r.suspects[id] = &suspect{key: keys[id].key, hash: keys[id].hash}
		}
	}
	nearly := false
	for id, s := range r.suspects {
		if s.verdict != undecided {
			continue
		}
		if s.see(states[id], stuck, r.limit) == equal {
			delete(r.suspects, id)
		}
		nearly = nearly || s.verdict == undecided && s.proven > 0
	}
	if r.looks >= r.last(nearly) {
		r.giveUp()
	}
}

// last is how many looks the table gets. Suspects have limits of their own, but
// without an identity every look may bring new ones. nearly: one of them has
// been proven to differ, if not often enough.
func (r *rows) last(nearly bool) int {
	switch {
	case r.q.keyed():
		return 3 * r.limit
	case nearly:
		return r.limit + proofs
	}
	return r.limit
}

func (r *rows) giveUp() {
	r.spent = true
	for _, s := range r.suspects {
		if s.verdict == undecided {
			s.verdict = moving
		}
	}
}

// conclude writes what is known into the result and says whether the table is
// settled.
func (r *rows) conclude(s *subject, lsn pg.LSN, lead, follow string) bool {
	if len(r.open()) > 0 {
		return false
	}
	var wrong, restless []*suspect
	for _, x := range r.suspects {
		switch x.verdict {
		case different:
			wrong = append(wrong, x)
		case moving:
			restless = append(restless, x)
		}
	}
	if r.partial && len(wrong) == 0 && !r.spent {
		return false
	}
	slices.SortFunc(wrong, bySuspect)
	slices.SortFunc(restless, bySuspect)
	for i, x := range wrong {
		if i == named-1 && len(wrong) > named || i == named-1 && r.partial {
			s.result.Differing = append(s.result.Differing, more(len(wrong)-i, r.partial))
			break
		}
		s.result.Differing = append(s.result.Differing, r.q.show(x.key)+": "+x.how(r.q, lead, follow))
	}
	if r.partial && len(wrong) > 0 && len(wrong) < named {
		s.result.Differing = append(s.result.Differing, more(0, true))
	}
	s.result.Equal = len(wrong) == 0
	s.result.LSN = lsn
	if s.result.Moving = len(restless); len(restless) > 0 {
		s.result.Skipped = r.restless(restless)
	}
	if r.partial && len(wrong) == 0 {
		s.result.Skipped = "moving: too many rows changed in every look to compare them all"
	}
	return true
}

// restless says which rows moved too much to be seen equal.
func (r *rows) restless(rows []*suspect) string {
	var names []string
	for _, x := range rows[:min(3, len(rows))] {
		names = append(names, r.q.show(x.key))
	}
	if len(rows) > 3 {
		names = append(names, "…")
	}
	says := "moving: %d rows changed in every look (%s)"
	if !r.q.keyed() {
		says = "moving: there is no key to follow rows by, and new ones came before every look, %d before the last (%s)"
	}
	return fmt.Sprintf(says, len(rows), strings.Join(names, "; "))
}

func more(n int, unknown bool) string {
	if unknown {
		return "and more: not every row was looked at"
	}
	return fmt.Sprintf("and %d more", n)
}
