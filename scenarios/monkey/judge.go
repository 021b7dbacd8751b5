package monkey

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// sequences judges the values that were handed out until now; each rule is
// reported once.
func (r *run) sequences() {
	r.mu.Lock()
	crashes := append([]crash(nil), r.crashes...)
	r.mu.Unlock()
	for _, says := range handedOut(r.load.acks(true), crashes) {
		kind, _, _ := strings.Cut(strings.TrimLeft(says, "0123456789 "), ":")
		if _, number, ok := strings.Cut(kind, "times "); ok {
			kind = number
		}
		r.onceOnly("numbers", kind, says)
	}
}

func (r *run) oneSide() {
	r.mu.Lock()
	var lives []life
	for _, c := range r.commands {
		lives = append(lives, c.life)
	}
	r.mu.Unlock()
	says, changed := bothSides(r.load.acks(false), lives)
	r.result.Switches = changed
	if says != "" {
		r.onceOnly("both", "", says)
	}
}

func (r *run) onceOnly(rule, kind, says string) {
	if !r.broken[rule+kind] {
		r.broken[rule+kind] = true
		r.violate(rule, "%s", says)
	}
}

// tables are what both sides must agree in.
var tables = []string{"ledger", "ledger_log", "accounts", "transfers", "pad"}

// equal holds the clients and wants both sides to come to the same rows.
func (r *run) equal(ctx context.Context) error {
	r.load.gate.Lock()
	defer r.load.gate.Unlock()
	sums := func(c *lab.Cluster) (string, error) {
		var all []string
		for _, t := range tables {
			v, err := c.Value(ctx, database, fmt.Sprintf("SELECT '%[1]s: ' || count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM %[1]s t", t))
			if err != nil {
				return "", err
			}
			all = append(all, v)
		}
		return strings.Join(all, ", "), nil
	}
	var old, fresh string
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := lab.Poll(limit, 200*time.Millisecond, func() (bool, error) {
		var err error
		if old, err = sums(r.stage.old); err != nil {
			return false, err
		}
		if fresh, err = sums(r.stage.new); err != nil {
			return false, err
		}
		return old == fresh, nil
	})
	if old != fresh {
		r.violate("equal", "nobody writes, and the sides do not come to the same rows: old has %s; new has %s", old, fresh)
		return nil
	}
	return err
}

// judge is what is looked at when all clients have stopped.
func (r *run) judge(ctx context.Context) error {
	// The side that takes writes in the end is the one that clients say.
	final, aside := r.stage.old, r.stage.new
	if without, _ := r.load.served(ctx, r.Served, "probe new"); len(without) == 0 {
		final, aside = aside, final
	} else if without, _ := r.load.served(ctx, r.Served, "probe old"); len(without) > 0 {
		r.violate("served", "neither side takes writes in the end")
	}
	r.load.stop()
	r.sequences()
	r.oneSide()
	verdict, err := lab.Judge(ctx, r.load.reports(), final.Conninfo(database), aside.Conninfo(database))
	if err != nil {
		return err
	}
	r.result.Acked = verdict.Acked
	if err := verdict.Err(); err != nil {
		r.violate("rows", "%v", err)
	}
	sum, err := final.Value(ctx, database, "SELECT sum(balance) FROM accounts")
	if err != nil {
		return err
	}
	if sum != "20000" {
		r.violate("bank", "the accounts have %s in all, and had 20000", sum)
	}
	off, err := final.Value(ctx, database, `SELECT count(*) FROM accounts a WHERE balance <> 1000 +
		(SELECT coalesce(sum(amount), 0) FROM transfers WHERE credit = a.id) - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE debit = a.id)`)
	if err != nil {
		return err
	}
	if off != "0" {
		r.violate("bank", "%s accounts do not have what their transfers say", off)
	}
	return nil
}

// figures fills the result.
func (r *run) figures() {
	for _, c := range r.load.clients {
		c.mu.Lock()
		if c.side != "" && !c.numbers {
			r.result.Probes += c.last
		}
		for _, a := range c.acks {
			r.result.Values += int64(len(a.values))
		}
		c.mu.Unlock()
	}
}
