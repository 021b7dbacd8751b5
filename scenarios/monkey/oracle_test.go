package monkey

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// writes are answers, as in "old 10-12 old 13-14 new 20-21", in milliseconds.
func writes(t *testing.T, s string) []ack {
	t.Helper()
	var acks []ack
	words := strings.Fields(s)
	for i := 0; i < len(words); i += 2 {
		var from, to int
		if _, err := fmt.Sscanf(words[i+1], "%d-%d", &from, &to); err != nil {
			t.Fatal(err)
		}
		acks = append(acks, ack{client: "c", side: words[i], start: time.Duration(from) * ms, end: time.Duration(to) * ms})
	}
	return acks
}

func TestBothSides(t *testing.T) {
	over := life{"cutover", 15 * ms, 40 * ms}
	back := life{"rollback", 50 * ms, 70 * ms}
	for _, c := range []struct {
		name, acks string
		commands   []life
		changed    int
		broken     bool
	}{
		{"one side", "old 1-2 old 3-9 old 10-12", nil, 0, false},
		{"over", "old 1-2 old 10-20 new 30-31 new 50-51", []life{over}, 1, false},
		{"over and back", "old 1-2 new 30-31 new 48-49 old 60-61", []life{over, back}, 2, false},
		{"nobody typed it", "old 1-2 new 30-31", nil, 1, true},
		{"typed when it had happened", "old 1-2 new 10-11 new 20-30", []life{over}, 1, true},
		{"typed too early for it", "old 1-2 old 41-42 new 48-49", []life{over}, 1, true},
		{"two answers that overlap prove nothing", "old 10-30 new 20-40 old 1-2 new 41-42", []life{over}, 1, false},
		{"old once more", "old 1-2 new 20-21 old 23-24 new 26-27", []life{over}, 2, true},
		{"old once more, and somebody types rollback in vain", "old 1-2 new 20-21 old 23-24 new 26-27", []life{over, {"rollback", 18 * ms, 60 * ms}}, 3, true},
		{"old once more, two of each", "old 1-2 new 20-21 old 23-24 new 26-27", []life{over, {"rollback", 18 * ms, 60 * ms}, over}, 3, false},
		{"a long answer hides nothing", "old 1-100 old 2-3 new 20-21 old 23-24 new 26-27", []life{over}, 2, true},
	} {
		says, changed := bothSides(writes(t, c.acks), c.commands)
		if changed != c.changed || (says != "") != c.broken {
			t.Errorf("%s: %d changes, %q", c.name, changed, says)
		}
	}
}

func TestHandedOut(t *testing.T) {
	call := func(client, side string, start, end int, values ...int64) ack {
		return ack{client, side, time.Duration(start) * ms, time.Duration(end) * ms, values}
	}
	lost := []crash{{"old", 1500 * ms, 1600 * ms}}
	for _, c := range []struct {
		name    string
		acks    []ack
		crashes []crash
		want    string
	}{
		{"in order", []ack{call("a", "old", 1, 2, 1, 2), call("b", "old", 3, 4, 3, 4), call("a", "new", 5, 6, 1004)}, nil, ""},
		{"side by side", []ack{call("a", "old", 1, 9, 1, 3), call("b", "old", 2, 4, 2, 4)}, nil, ""},
		{"lower on the closed side, and nobody's else", []ack{call("a", "new", 1, 2, 1001), call("b", "old", 3, 4, 5)}, nil, ""},
		{"twice", []ack{call("a", "new", 1, 2, 1001), call("b", "old", 3, 4, 1001)}, nil, "1 values were handed out twice"},
		{"twice in one call", []ack{call("a", "new", 1, 2, 7, 7)}, nil, "1 values were handed out twice"},
		{"back for a client", []ack{call("a", "new", 1, 2, 1001), call("a", "old", 3, 4, 5)}, nil, "back 1 times for a"},
		{"back on a side", []ack{call("a", "old", 1, 2, 10), call("b", "old", 3, 4, 5)}, nil, "back 1 times on old"},
		{"forgotten in a crash", []ack{call("a", "old", 1400, 1450, 10), call("a", "old", 1700, 1701, 10)}, lost, ""},
		{"long before the crash", []ack{call("a", "old", 100, 110, 10), call("a", "old", 1700, 1701, 10)}, lost, "1 values were handed out twice"},
		{"a crash of the other side", []ack{call("a", "new", 1400, 1450, 10), call("a", "new", 1700, 1701, 10)}, lost, "1 values were handed out twice"},
	} {
		says := strings.Join(handedOut(c.acks, c.crashes), "; ")
		if c.want == "" && says != "" || !strings.Contains(says, c.want) {
			t.Errorf("%s: %q", c.name, says)
		}
	}
}
