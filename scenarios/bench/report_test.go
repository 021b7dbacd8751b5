package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestKeepReplacesItsOwnSection: what was measured of other sections stays,
// and sections stand in their order, whatever was measured first.
func TestKeepReplacesItsOwnSection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docs", "b.md")
	keep := func(name, says string) string {
		t.Helper()
		r := Report{
			Name: name, Title: "The " + name, Where: "here", Says: []string{says},
			Tables:   []Table{{Header: []string{"who", "took"}, Rows: [][]string{{"a", "1 s"}, {"longer", "2 s"}}}},
			Commands: []Command{{"a", "run a"}},
		}
		if err := r.keep(path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	keep("cutover", "first")
	keep("copy", "second")
	text := keep("cutover", "third")
	if strings.Contains(text, "first") || strings.Count(text, "## The cutover") != 1 {
		t.Errorf("what was measured before stands still:\n%s", text)
	}
	if at := strings.Index(text, "second"); at < 0 || at > strings.Index(text, "third") {
		t.Errorf("the copy does not stand before the cutover:\n%s", text)
	}
	if again := keep("cutover", "third"); again != text {
		t.Errorf("the same result made another file:\n%s", again)
	}
	for _, want := range []string{"| longer | 2 s |", "```sh\nrun a\n```"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestFigures(t *testing.T) {
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("median of 1, 2, 3 is %v", m)
	}
	if m := median([]float64{4, 1}); m != 2.5 {
		t.Errorf("median of 1, 4 is %v", m)
	}
	if m := median(nil); !math.IsNaN(m) || seconds(m) != "–" || ratio(1, m) != "–" {
		t.Errorf("median of nothing is %v", m)
	}
	for exponent, times := range map[float64][]float64{1: {3, 6, 12}, 2: {1, 4, 16}, 0: {5, 5, 5}} {
		if s := slope([]float64{10, 20, 40}, times); math.Abs(s-exponent) > 1e-9 {
			t.Errorf("%v grows with %v, want %v", times, s, exponent)
		}
	}
}

// TestSections: a section that nobody knows is refused before anything is booted.
func TestSections(t *testing.T) {
	err := Run(t.Context(), Options{Sections: []string{"copy", "cpoy"}}, "nowhere")
	if err == nil || !strings.Contains(err.Error(), "cpoy") || !strings.Contains(err.Error(), "growth") {
		t.Errorf("error %v", err)
	}
}

func TestReadTop(t *testing.T) {
	const text = `File: crossfade
Type: cpu
Time: 2026-11-28 05:00:26 UTC
Duration: 55.71s, Total samples = 2.51s ( 4.51%)
Showing nodes accounting for 2510ms, 100% of 2510ms total
      flat  flat%   sum%        cum   cum%
     200ms  7.97%  7.97%      210ms  8.37%  runtime.memmove
    1510ms 60.16% 68.13%     1510ms 60.16%  internal/runtime/syscall.Syscall6
      10ms   0.4% 68.53%       20ms   0.8%  github.com/jackc/pgx/v5/pgtype.(*Map).Scan (inline)
         0     0% 68.53%     1510ms 60.16%  internal/poll.(*FD).Read`
	got := readTop(text)
	want := []spent{{"internal/runtime/syscall.Syscall6", 1.51}, {"runtime.memmove", 0.2}, {"github.com/jackc/pgx/v5/pgtype.(*Map).Scan (inline)", 0.01}}
	if !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	for function, kind := range map[string]string{
		"internal/runtime/syscall.Syscall6": "system calls", "runtime.memmove": "moving bytes", "runtime.mallocgc": "Go's runtime",
		"github.com/jackc/pgx/v5/pgtype.(*Map).Scan (inline)": "decoding of rows and values", "github.com/jackc/pgx/v5/pgproto3.(*Frontend).Receive": "messages of the protocol",
		"encoding/json.Marshal": "decoding of rows and values", "main.main": otherKind,
	} {
		if got := kindOf(function); got != kind {
			t.Errorf("%s is %s, want %s", function, got, kind)
		}
	}
}

func TestGrownTable(t *testing.T) {
	g := &grown{title: "x:", took: map[string][]float64{}, memory: map[string]int64{}}
	for _, s := range []float64{1, 2, 4} {
		var one times
		one.add("linear", cost{Seconds: 3 * s, Memory: 1 << 20})
		one.add("linear", cost{Seconds: 3 * s, Memory: 3 << 20})
		one.add("flat", cost{Seconds: 5})
		g.add(s, fmt.Sprint(s), &one)
	}
	want := [][]string{{"flat", "5.00 s", "5.00 s", "5.00 s", "0.00", "0 MB"}, {"linear", "3.00 s", "6.00 s", "12.00 s", "1.00", "3 MB"}}
	if got := g.table(); fmt.Sprint(got.Rows) != fmt.Sprint(want) || len(got.Header) != 6 {
		t.Errorf("%v under %v, want %v", got.Rows, got.Header, want)
	}
}
