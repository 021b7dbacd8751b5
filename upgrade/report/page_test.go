package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/flow"
)

// hard is a dry run of everything that is hard to lay out: names as long as
// PostgreSQL takes them, statements without a blank, names that are HTML.
func hard() DryRun {
	long := strings.Repeat("sixty_three_letters_without_a_blank_", 2)[:63]
	evil := `</script><script>document.title="x"</script>"><img src=x onerror=alert(1)>`
	d := DryRun{
		Upgrade: "wacken17", Runbook: "/srv/" + long + "/" + long + "/crossfade.yaml", At: at, Phase: PhaseNew, Sampled: "measured in 31.0 s",
		Old: Cluster{
			Name: "old", Version: "15.18", Address: "wacken.brussels.example:5432", Site: "brussels.example", Synchronous: "FIRST 2 (metal, rock, " + long + ")", Level: "on",
			Nodes: []Node{
				{Name: "metal", AppName: "metal", Address: "metal.brussels.example:5432", Site: "brussels.example", State: "streaming", SyncState: "sync"},
				{Name: "power", AppName: "rock", Upstream: "metal", Address: "power.ghent.example:5432", Site: "ghent.example", State: "catchup", SyncState: "async", Delay: time.Hour},
				{Name: long, Upstream: "power", Address: long + ".example:5432", Site: "ghent.example", State: "streaming"},
				{Name: "deep", Upstream: long, State: "streaming"},
				{Name: "gone"},
				{Name: evil, AppName: evil, State: "streaming", Unlisted: true},
			},
		},
		New:     Cluster{Name: "wacken17", Version: "17.12", Address: "[2001:db8::1]:5432", Nodes: []Node{{Name: "metal", AppName: "metal", Planned: true}, {Name: "rock", Upstream: "metal", Planned: true}}},
		Traffic: []string{"Clients of " + long + " come through PgBouncer at pool1:6432."},
		Databases: []Database{{
			Name: long, Tables: 2, Excluded: 1, Sets: []SetSize{{"orders", 1, 7 << 40, 3 << 40}, {"rest", 1, 0, 0}},
			Biggest: []TableSize{{long + "." + long, "orders", 7 << 40, 3 << 40, 123456789012}, {evil, "rest", 1, 0, -1}},
		}},
		Figures: []Figure{
			{
				At: at, ID: "outage", Title: "Writers wait at the cutover", Value: new(7.25), Unit: "seconds", Exceeds: true, Says: "more than cutover.max_blocked", Formula: "work + " + long + long,
				Terms: []Term{{"work", "seconds", 7.2, "assumed", long + long}, {"max_blocked", "seconds", 5, "runbook", ""}},
			},
			{At: at, ID: "catch-up", Object: long, Title: "Catch up with " + long, Unit: "seconds", Never: true, Exceeds: true, Formula: "changes × apply", Says: "never"},
			{At: at, ID: "copy-rate", Title: "Rate at which old is read", Unit: "bytes a second", Formula: "read / took", Says: "nothing could be read"},
			{At: at, ID: "prepare", Title: "All of prepare", Value: new(90061.0), Unit: "seconds", Formula: "the sum of its steps", Actual: new(80000.5)},
		},
	}
	for i := range 300 {
		d.Findings = append(d.Findings, Finding{
			ID: "replica-identity", Level: Block, On: "old", Database: long, Object: fmt.Sprintf("public.%s%d", long, i), Says: "table " + evil + " has no primary key; " + long + long + long,
			Fix: fmt.Sprintf("ALTER TABLE public.%s%d ADD PRIMARY KEY (%s);\nwhich waits", long, i, long), Acceptable: i > 0,
		})
	}
	d.Findings[0].Grid = &Grid{Columns: []string{"on old", "have", "used by others", "needed here", evil}, Rows: [][]string{{"max_replication_slots", "10", "3", "4", long}, {long, evil, "1", "", long + long}}}
	d.Findings = append(d.Findings, Finding{ID: "unlogged", Level: Block, On: "old", Says: "is unlogged", Accepted: true, Acceptable: true}, Finding{ID: "note", Level: Note, On: "old", Says: "so"})
	p := flow.Plan{Name: "cutover", AllOrNothing: true, Steps: []flow.Step{
		{ID: "copy/" + long, Title: "Copy " + evil, Forecast: 90 * time.Minute, Does: []flow.Effect{
			{On: "new", Database: long, SQL: "SELECT '" + strings.Repeat("x", 5000) + "', E'" + evil + "'"},
			{On: "local", Run: []string{"/usr/lib/" + long + "/pg_dump", evil, long + long}},
		}},
		{ID: "open", Title: "Open new", Commit: true},
		{ID: "after", Title: "After"},
	}}
	for i := range 30 {
		p.Steps[0].Does = append(p.Steps[0].Does, flow.Effect{On: "new", Database: long, SQL: fmt.Sprintf("TRUNCATE ONLY %s%d", long, i)})
	}
	d.Plans = append(d.Plans, PlanOf(p))
	d.Plans[0].Steps[0].Actual = 95 * time.Minute
	return d
}

func asPage(t *testing.T, d DryRun, full bool) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, d, full); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPage: in a real browser nothing is wider than its place, at any width and
// on paper, and nothing throws, whatever the names are.
func TestPage(t *testing.T) {
	b := labtest.Browser(t)
	for _, s := range labtest.Page(t, b, asPage(t, hard(), false), 400, 1280) {
		t.Error(s)
	}
	few := DryRun{Upgrade: "w", At: at, Undrawn: "pg_dump was not found", Findings: hard().Findings[:1]}
	for _, s := range labtest.Page(t, b, asPage(t, few, true), 320) {
		t.Error(s)
	}
	// A look that finds nothing is none.
	bad := strings.Replace(asPage(t, few, false), "</h1>", `</h1><p style="white-space: nowrap">`+strings.Repeat("wide ", 200)+`</p><button onclick="nothing()">x</button>`, 1)
	if got := strings.Join(labtest.Page(t, b, bad, 400), "\n"); !strings.Contains(got, "wide wide") || !strings.Contains(got, "nothing is not defined") {
		t.Errorf("what is wrong with a page was not found:\n%s", got)
	}
}

// TestPageIsWhole: the page needs nothing from elsewhere, runs one script of
// ours, says go or no-go, and holds what is to be copied as it is.
func TestPageIsWhole(t *testing.T) {
	text := asPage(t, hard(), false)
	if m := regexp.MustCompile(`(?i)(src|href|action|data)\s*=\s*["']?(https?:|//|data:)|url\(|@import|<link|<img|<iframe`).FindString(text); m != "" {
		t.Errorf("the page fetches something: %s", m)
	}
	if n := strings.Count(text, "<script>"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	for _, want := range []string{
		"NO-GO", "300 blocking findings block the upgrade", "catch-up ", "280 more", "… and 29 more like it", "calls itself rock", "the point of no return", "took 1h35m0s",
		"ALTER TABLE public.sixty_three", "<th>used by others</th>", "never", "not known", "25 h 1 min", "of at most 5.0 s", "ghent.example", "FIRST 2 (metal, rock",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(asPage(t, hard(), true), "TRUNCATE ONLY"); n != 30 {
		t.Errorf("full shows %d of 30 effects", n)
	}
	go_ := hard()
	go_.Findings, go_.Figures = go_.Findings[300:], go_.Figures[3:]
	if v := go_.Verdict(); !v.Go {
		t.Errorf("an accepted finding and a note stand in the way: %q", v.Reasons)
	}
	if text := asPage(t, go_, false); !strings.Contains(text, ">GO<") {
		t.Error("the page does not say go")
	}
}

// TestMarkdown: the same content, with nothing in it that Markdown would take
// for its own.
func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := Markdown(&b, hard(), false); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	outside := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	if strings.Contains(outside, "<script") || strings.Contains(outside, "<img") {
		t.Error("a name became HTML")
	}
	for _, want := range []string{"## NO-GO", "```sql\nSELECT 'xxx", "calls itself rock", "| **7.2 s** |", "  | max\\_replication\\_slots | 10 | 3 | 4 |", "… and 29 more like it", "**the point of no return: each step", "| planned by, date |"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if n := strings.Count(text, "```"); n%2 != 0 {
		t.Errorf("%d fences", n)
	}
}
