package monkey

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"
)

// Nothing in this file knows crossfade: it reads what clients were answered, and
// when which command was typed.

// life is when a process of a command lived, and could have changed something.
type life struct {
	command    string
	start, end time.Duration
}

// changes is the command that makes clients go to a side.
var changes = map[string]string{"new": "cutover", "old": "rollback"}

// bothSides looks for a moment at which both sides took writes. It cannot be seen
// directly: a write that was acknowledged was made at some moment between its
// start and its end, and two that overlap prove nothing. But where a write on
// one side had ended before one on the other began, the side that takes writes
// has changed between the start of the first and the end of the second. That is
// what cutover does, to new, and rollback, to old, once each; so
//
//	every change needs a process of its command, of its own, that lived then.
//
// Two sides that take writes at the same time change with every write, and run
// out of commands at the second. The chain that is looked at is the longest that
// the answers force: of all writes of the other side that began later, the one
// that ended first.
func bothSides(acks []ack, commands []life) (says string, changed int) {
	sides := map[string][]ack{}
	for _, a := range acks {
		sides[a.side] = append(sides[a.side], a)
	}
	soonest := map[string][]int{} // by start: which of the later ones ends first
	for side, list := range sides {
		slices.SortFunc(list, func(a, b ack) int { return cmp.Compare(a.start, b.start) })
		best := make([]int, len(list))
		for i := len(list) - 1; i >= 0; i-- {
			best[i] = i
			if i+1 < len(list) && list[best[i+1]].end < list[i].end {
				best[i] = best[i+1]
			}
		}
		soonest[side] = best
	}
	next := func(side string, after time.Duration) (ack, bool) {
		list := sides[side]
		i := sort.Search(len(list), func(i int) bool { return list[i].start > after })
		if i == len(list) {
			return ack{}, false
		}
		return list[soonest[side][i]], true
	}
	const never = time.Duration(-1)
	at, ok := next("old", never)
	if first, there := next("new", never); there && (!ok || first.end < at.end) {
		at, ok = first, true
	}
	used := map[int]bool{}
	for ok {
		to := "new"
		if at.side == "new" {
			to = "old"
		}
		var then ack
		if then, ok = next(to, at.end); !ok {
			break
		}
		// The last write of the side before it makes the time of the change short.
		before := at
		list := sides[at.side]
		for i := sort.Search(len(list), func(i int) bool { return list[i].start >= then.start }) - 1; i >= 0 && list[i].start > at.start; i-- {
			if list[i].end < then.start {
				before = list[i]
				break
			}
		}
		changed++
		found := -1
		for i, c := range commands {
			if c.command == changes[to] && !used[i] && c.start <= then.end && c.end >= before.start && (found < 0 || c.end < commands[found].end) {
				found = i
			}
		}
		if found < 0 {
			return fmt.Sprintf("%s took a write of %s between %s and %s, and %s one of %s between %s and %s, without a %s of its own in between",
				before.side, before.client, clock(before.start), clock(before.end), to, then.client, clock(then.start), clock(then.end), changes[to]), changed
		}
		used[found] = true
		at = then
	}
	return "", changed
}

// crash is when a server lost its memory.
type crash struct {
	side       string
	start, end time.Duration
}

// flushed is how long before a crash PostgreSQL may have given out a value that
// it forgets: nextval that takes one of the 32 values logged ahead by another
// transaction waits for no flush.
const flushed = time.Second

// handedOut looks for values of the sequence that two calls were given, and for
// a value that is not greater than one that the same client, or anybody on the
// same side, was given before.
func handedOut(acks []ack, crashes []crash) []string {
	forgotten := func(first, second ack) bool {
		return slices.ContainsFunc(crashes, func(c crash) bool {
			return first.side == c.side && second.side == c.side && first.end > c.start-flushed && first.end <= c.end && second.end >= c.start
		})
	}
	acks = slices.Clone(acks)
	slices.SortFunc(acks, func(a, b ack) int { return cmp.Compare(a.end, b.end) })
	var says []string

	twice, example := 0, ""
	owner := map[int64]int{}
	for i, a := range acks {
		for _, v := range a.values {
			if j, ok := owner[v]; ok && !forgotten(acks[j], a) {
				if twice++; example == "" {
					example = fmt.Sprintf("%d to %s on %s at %s and to %s on %s at %s", v, acks[j].client, acks[j].side, clock(acks[j].end), a.client, a.side, clock(a.end))
				}
			}
			owner[v] = i
		}
	}
	if twice > 0 {
		says = append(says, fmt.Sprintf("%d values were handed out twice, the first of them %s", twice, example))
	}

	// In the order in which they began, against the highest of those that had
	// ended before.
	back := func(what string, list []ack) {
		byStart := slices.Clone(list)
		slices.SortFunc(byStart, func(a, b ack) int { return cmp.Compare(a.start, b.start) })
		ended := 0
		var highest ack
		count, example := 0, ""
		for _, a := range byStart {
			for ; ended < len(list) && list[ended].end < a.start; ended++ {
				if highest.values == nil || slices.Max(list[ended].values) > slices.Max(highest.values) {
					highest = list[ended]
				}
			}
			if highest.values != nil && slices.Min(a.values) <= slices.Max(highest.values) && !forgotten(highest, a) {
				if count++; example == "" {
					example = fmt.Sprintf("%s had %d on %s at %s, and then %s had %d on %s at %s", highest.client, slices.Max(highest.values), highest.side, clock(highest.end),
						a.client, slices.Min(a.values), a.side, clock(a.end))
				}
			}
		}
		if count > 0 {
			says = append(says, fmt.Sprintf("values went back %d times %s: %s", count, what, example))
		}
	}
	by := func(key func(ack) string) map[string][]ack {
		m := map[string][]ack{}
		for _, a := range acks {
			m[key(a)] = append(m[key(a)], a)
		}
		return m
	}
	for side, list := range by(func(a ack) string { return a.side }) {
		back("on "+side, list)
	}
	for client, list := range by(func(a ack) string { return a.client }) {
		back("for "+client, list)
	}
	slices.Sort(says[min(1, len(says)):])
	return says
}

// clock is a moment of a run.
func clock(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }
