package monkey

import (
	"fmt"
	"testing"
)

// TestScript: a seed gives the same rounds each time, whatever is printed can be
// read again, and in many rounds everything breaks that can.
func TestScript(t *testing.T) {
	seen := map[string]int{}
	commands := map[string]int{}
	for seed := range uint64(200) {
		one, two := newScript(seed), newScript(seed)
		for range 20 {
			r := one.next()
			if again := two.next(); r.String() != again.String() {
				t.Fatalf("seed %d gave %q, and then %q", seed, r, again)
			}
			read, err := Parse(r.String())
			if err != nil || fmt.Sprintf("%+v", read.String()) != fmt.Sprintf("%+v", r.String()) {
				t.Fatalf("%q was read as %q: %v", r, read, err)
			}
			for _, f := range r.Faults {
				seen[f.Target+" "+f.Kind]++
			}
			commands[r.Command]++
		}
	}
	for _, b := range breakable {
		for _, kind := range b.kinds {
			if seen[b.target+" "+kind] == 0 {
				t.Errorf("%s is never %s", b.target, kind)
			}
		}
	}
	for _, c := range []string{"cutover", "rollback", "rehearse", "prepare", "verify", "abort"} {
		if commands[c] == 0 {
			t.Errorf("%s is never typed", c)
		}
	}
	for _, bad := range []string{"", "a", "c cutover", "a cutover | pool2 stolen at close", "a cutover | pool2 killed near close", "a cutover | pool2 killed at close for ever", "a cutover | then c"} {
		if r, err := Parse(bad); err == nil {
			t.Errorf("%q was read as %q", bad, r)
		}
	}
}
