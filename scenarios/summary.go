package scenarios

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"unicode/utf8"
)

// summary is the table in the end.
func (p *play) summary(failed error) {
	r := p.result
	p.printf("\n")
	if len(r.Crossings) > 0 {
		p.crossingTable()
	}
	if len(r.Proofs) > 0 {
		p.proofTable()
	}
	if failed != nil {
		p.printf("FAILED after %s: %s\n", took(inSeconds(r.Seconds)), failed)
		return
	}
	p.printf("passed in %s: all of it is true\n", took(inSeconds(r.Seconds)))
}

// crossingTable is the milliseconds of every step of every crossing, side by side.
func (p *play) crossingTable() {
	type cell map[int]string
	var ids []string
	cells := map[string]cell{}
	put := func(id string, crossing int, text string) {
		if cells[id] == nil {
			cells[id] = cell{}
			ids = append(ids, id)
		}
		cells[id][crossing] += text
	}
	head := pad("step", idColumns)
	for i, c := range p.result.Crossings {
		head += fmt.Sprintf("%18s", fmt.Sprintf("%s %d→%d", c.Command, c.From, c.To))
		for _, s := range c.Steps {
			put(s.ID, i, took(inSeconds(s.Seconds)))
		}
	}
	for i, c := range p.result.Crossings {
		if c.Blocked != nil {
			put("writes blocked", i, took(inSeconds(*c.Blocked)))
		}
		put("outage at the client", i, took(inSeconds(c.Outage)))
		if c.Refused != nil {
			put("writes refused", i, number(*c.Refused))
		}
		put("canaries seen", i, number(int64(c.Canaries)))
	}
	p.printf("%s\n", head)
	for _, id := range ids {
		row := pad(id, idColumns)
		for i := range p.result.Crossings {
			row += fmt.Sprintf("%18s", cells[id][i])
		}
		p.printf("%s\n", row)
	}
	p.printf("\n")
}

// proofTable is the gist of every claim of every proof, side by side.
func (p *play) proofTable() {
	head := pad("proven", claimColumns)
	var whats []string
	cells := map[string][]string{}
	for i, proof := range p.result.Proofs {
		head += fmt.Sprintf("%*s", gistColumns, proof.title())
		for _, c := range proof.Claims {
			if cells[c.What] == nil {
				whats = append(whats, c.What)
				cells[c.What] = make([]string, len(p.result.Proofs))
			}
			cells[c.What][i] = c.gist()
		}
	}
	p.printf("%s\n", head)
	for _, w := range whats {
		row := pad(w, claimColumns)
		for _, v := range cells[w] {
			row += strings.Repeat(" ", max(1, gistColumns-utf8.RuneCountInString(v))) + v
		}
		p.printf("%s\n", row)
	}
	p.printf("\n")
}

const gistColumns = 30

// gist is what was seen in a few words.
func (c Claim) gist() string {
	if !c.True {
		return "FALSE"
	}
	first, _, _ := strings.Cut(c.Says, "; ")
	first, _, _ = strings.Cut(first, ", ")
	return cut(first, gistColumns-2)
}

// machine is what the measured times depend on.
func machine() string {
	says := plural(int64(runtime.NumCPU()), "core")
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if words := strings.Fields(string(b)); len(words) > 0 {
			says += ", load average " + words[0] + " before the play"
		}
	}
	return says
}

func firstLine(s string) string {
	first, rest, more := strings.Cut(strings.TrimSpace(s), "\n")
	if more && strings.TrimSpace(rest) != "" {
		first += " …"
	}
	return first
}
