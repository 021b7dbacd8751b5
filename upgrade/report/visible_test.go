package report

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"crossfade/upgrade/flow"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"plain, with ümlaut, 表 and 🐘": "plain, with ümlaut, 表 and 🐘",
		"two\nlines\tand a tab":       "two\nlines\tand a tab",
		"evil\x1b]0;x\x07":            `evil\x1b]0;x\x07`,
		"\r\x7f\u009b31m":             `\x0d\x7f\x9b31m`,
		"\u202eexe\u2066\u200f\ufeff": `\u202eexe\u2066\u200f\ufeff`,
		"\u2028\U000e0041":            `\u2028\U000e0041`,
		"latin1 \xe9, and \ufffd":     `latin1 \xe9, and ` + "\ufffd",
	} {
		if got := VisibleText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// hostile are names that PostgreSQL takes.
var hostile = []string{
	"evil\x1b]0;x\x07", "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "back`quo``te", "pi|pe", "rtl\u202etxt",
	"a\n\n<script>alert(2)</script>\n\n# head", "[link](javascript:alert(3))", "![image](http://evil.example/i.png)", "http://evil.example", "www.evil.example",
	"*bold*", "_under_", "~~struck~~", `back\slash`, "&lt;", "<!-- ",
}

// TestMarkdownOfHostileNames: no name ends what it stands in. Every piece of the
// dry run holds every name; what is left of the page outside of its blocks of
// code has no HTML, no link, no image and no autolink.
func TestMarkdownOfHostileNames(t *testing.T) {
	for _, name := range hostile {
		d := DryRun{
			Upgrade: name, Runbook: name, Undrawn: name, Sampled: name, Traffic: []string{name},
			Old:       Cluster{Name: name, Version: name, Address: name, Site: name, Synchronous: name, Nodes: []Node{{Name: name, Upstream: "x", Address: name, State: name, AppName: name + "2"}}},
			New:       Cluster{Name: name, Silent: name},
			Databases: []Database{{Name: name}},
			Findings:  []Finding{{ID: name, Level: Block, On: name, Database: name, Object: name, Says: name, Fix: name, Grid: &Grid{Columns: []string{name}, Rows: [][]string{{name}}}}},
			Figures:   []Figure{{ID: "copy", Object: name, Title: name, Formula: name, Says: name, Terms: []Term{{Name: name, Says: name}}}},
			Plans:     []Plan{{Name: "prepare", Steps: []Step{{Plan: "prepare", ID: name, Title: name, Effects: []flow.Effect{{On: name, Database: name, SQL: name}}}}}},
		}
		var b bytes.Buffer
		if err := Markdown(&b, d, true); err != nil {
			t.Fatal(err)
		}
		page := string(Visible(b.Bytes()))
		if !strings.Contains(page, "# Dry run of") {
			t.Fatalf("no page:\n%s", page)
		}
		fence := ""
		for line := range strings.Lines(page) {
			at := strings.TrimSpace(line)
			switch {
			case fence != "" && at == fence:
				fence = ""
				continue
			case fence == "" && strings.HasPrefix(at, "```"):
				fence = strings.TrimRight(at, "sqlh")
				continue
			case fence != "":
				continue
			}
			prose := outsideCode(line)
			for _, bad := range []string{"<", "\x1b", "\u202e", "](", "![", "http://", " www.", "# head"} {
				if bad == "# head" && !strings.HasPrefix(prose, bad) {
					continue
				}
				if strings.Contains(prose, bad) {
					t.Errorf("%q: %q stands in %q", name, bad, line)
				}
			}
		}
		if fence != "" {
			t.Errorf("%q leaves a block of code open", name)
		}
	}
}

// escaped is a character that a backslash makes mean nothing.
var escaped = regexp.MustCompile("\\\\[\\\\`*_\\[\\]|#~:.]")

// outsideCode is a line of Markdown without its code spans and what is escaped;
// an odd back quote opens none.
func outsideCode(line string) string {
	parts := strings.Split(escaped.ReplaceAllString(line, ""), "`")
	out := ""
	for i, p := range parts {
		if i%2 == 0 || i == len(parts)-1 {
			out += p
		}
	}
	return out
}
