package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

func faultsCommand() *cli.Command {
	return &cli.Command{
		Name: "faults", Usage: "read go test -v of the tests that break things, and print docs/faults.md", Hidden: true,
		Action: func(c *cli.Context) error {
			if _, err := words(c, 0, 0); err != nil {
				return err
			}
			return faults(os.Stdin, c.App.Writer)
		},
	}
}

// broken is what the tests say that break things.
type broken struct {
	steps, lines []string                     // of the isolation matrix, as they came
	cells        map[string]map[string]string // by step and line
	killed       []string                     // the steps at which a cutover was killed, as they came
	kills        map[string]map[string]string // by step and command
	troubles     []string                     // after open, as they came
	openSteps    []string                     // the steps after open, as they came
	after        map[string]map[string]string // by trouble and step
	byHand       []byHand
	played       [][]string // by seed: what the randomised test saw, as monkeyRan has it
	failed       []string
}

// byHand is what somebody did by hand, and what was said of it.
type byHand struct{ what, seen, said string }

var (
	runs       = regexp.MustCompile(`^=== RUN +(\S+)`)
	ends       = regexp.MustCompile(`^ *--- FAIL: (\S+)`)
	cutEnds    = regexp.MustCompile(`_test\.go:\d+: cut (\S+) at (\S+): exit (-?\d+) after`)
	cutNone    = regexp.MustCompile(`_test\.go:\d+: cut (\S+) at (\S+): none took writes; cutover again: exit \d+, writable (\w+)`)
	killAt     = regexp.MustCompile(`_test\.go:\d+: (cutover|rollback) killed at (\S+): phase (\w+), writable (\w+)(?:, longest gap (\S+))?`)
	seenAfter  = regexp.MustCompile(`_test\.go:\d+: seen after (\S+)`)
	monkeyRan  = regexp.MustCompile(`_test\.go:\d+: seed (\d+): (\d+) rounds, (\d+) rows, (\d+) values, (\d+) probes, (\d+) switches, longest wait (\S+), faults: (.*); (\d+) violations`)
	afterOpen  = regexp.MustCompile(`_test\.go:\d+: after open: (.+) at (\S+) of (?:cutover|rollback): exit (-?\d+), (.*)`)
	prepareHas = regexp.MustCompile(`_test\.go:\d+: prepare said: (?:hint: )?(.*)`)
)

// address is where a server of that run was.
var address = regexp.MustCompile(` \(\S+ port \d+\)`)

// serves is who takes writes after an exit code of cutover.
var serves = map[string]string{"0": "new", "5": "old", "6": "new"}

// faults reads the output of go test -v and writes the page. A test that failed is
// named in it, and is an error.
func faults(from io.Reader, to io.Writer) error {
	b := &broken{cells: map[string]map[string]string{}, kills: map[string]map[string]string{}, after: map[string]map[string]string{}}
	scan := bufio.NewScanner(from)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		if m := runs.FindStringSubmatch(scan.Text()); m != nil {
			if what, ok := strings.CutPrefix(m[1], "TestHumanError/"); ok {
				b.byHand = append(b.byHand, byHand{what: strings.ReplaceAll(what, "_", " ")})
			}
			continue
		}
		b.take(scan.Text())
	}
	if err := scan.Err(); err != nil {
		return err
	}
	if len(b.cells)+len(b.kills)+len(b.after)+len(b.byHand)+len(b.played) == 0 {
		return errors.New("nothing of the tests that break things was read")
	}
	if _, err := io.WriteString(to, b.markdown()); err != nil {
		return err
	}
	if len(b.failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(b.failed, ", "))
	}
	return nil
}

func (b *broken) take(line string) {
	if m := ends.FindStringSubmatch(line); m != nil {
		b.failed = append(b.failed, m[1])
	}
	if m := cutEnds.FindStringSubmatch(line); m != nil {
		who := serves[m[3]]
		if who == "" {
			who = "?"
		}
		b.cell(m[2], m[1], "exit "+m[3]+", "+who)
	}
	if m := cutNone.FindStringSubmatch(line); m != nil {
		was, _, _ := strings.Cut(b.cells["`"+m[2]+"`"][m[1]], ",")
		b.cell(m[2], m[1], was+", none; `cutover` again: "+m[3])
	}
	if m := killAt.FindStringSubmatch(line); m != nil {
		says := m[3] + ", " + m[4]
		if m[5] != "" {
			says += ", " + m[5]
		}
		if b.kills[m[2]] == nil {
			b.kills[m[2]] = map[string]string{}
		}
		if m[1] == "cutover" { // each step is killed in both, but a rollback's come in another order
			b.killed = append(b.killed, m[2])
		}
		b.kills[m[2]][m[1]] = says
	}
	if m := afterOpen.FindStringSubmatch(line); m != nil {
		if b.after[m[1]] == nil {
			b.after[m[1]] = map[string]string{}
			b.troubles = append(b.troubles, m[1])
		}
		step := "`" + m[2] + "`"
		if !slices.Contains(b.openSteps, step) {
			b.openSteps = append(b.openSteps, step)
		}
		b.after[m[1]][step] = "exit " + m[3] + ", " + m[4]
	}
	if m := monkeyRan.FindStringSubmatch(line); m != nil {
		b.played = append(b.played, m[1:])
	}
	if n := len(b.byHand) - 1; n >= 0 {
		if m := seenAfter.FindStringSubmatch(line); m != nil {
			b.byHand[n].seen = m[1]
		}
		if m := prepareHas.FindStringSubmatch(line); m != nil {
			b.byHand[n].said = strings.TrimPrefix(address.ReplaceAllString(m[1], ""), "crossfade: ")
		}
	}
}

// lastNumber takes the number from the end of "old killed 3".
func lastNumber(s string) (kind string, n int, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, 0, false
	}
	n, err := strconv.Atoi(s[i+1:])
	return s[:i], n, err == nil
}

func (b *broken) cell(step, line, says string) {
	step = "`" + step + "`"
	if b.cells[step] == nil {
		b.cells[step] = map[string]string{}
		b.steps = append(b.steps, step)
	}
	if !slices.Contains(b.lines, line) {
		b.lines = append(b.lines, line)
	}
	b.cells[step][line] = says
}

// page is what is written: tables in Markdown.
type page struct{ strings.Builder }

func (p *page) row(cells ...string) { p.WriteString("| " + strings.Join(cells, " | ") + " |\n") }

func (p *page) head(cells ...string) {
	p.WriteString("\n")
	p.row(cells...)
	p.WriteString("|" + strings.Repeat(" --- |", len(cells)) + "\n")
}

// grid is a table with a column for each of columns, and a row for each of rows.
func (p *page) grid(corner string, columns, rows []string, cells map[string]map[string]string) {
	p.head(append([]string{corner}, columns...)...)
	for _, row := range rows {
		line := []string{row}
		for _, column := range columns {
			line = append(line, cells[row][column])
		}
		p.row(line...)
	}
}

func (b *broken) markdown() string {
	p := &page{}
	p.WriteString("# Faults\n\nWritten by `make faults`, from what tests say that break things on purpose, against real servers and under clients that write. " +
		"In every cell no acknowledged row is lost, and never do both sides take writes: that is what the tests want, by the writers' own list and by looking at both servers.\n")
	if len(b.failed) > 0 {
		p.WriteString("\n**Failed: " + strings.Join(b.failed, ", ") + "**\n")
	}
	for _, section := range []struct {
		seen  int
		write func(*page)
	}{{len(b.cells), b.cuts}, {len(b.kills), b.killings}, {len(b.after), b.afterOpen}, {len(b.byHand), b.hands}, {len(b.played), b.random}} {
		if section.seen > 0 {
			section.write(p)
		}
	}
	return p.String()
}

func (b *broken) cuts(p *page) {
	p.WriteString("\n## The network is cut\n\nAt the beginning of a step of `cutover` every byte of a line is swallowed, and later the line is whole again. " +
		"The cell has the exit code and who takes writes then. Where nobody does, the same command run again ends it.\n")
	p.grid("step", b.lines, b.steps, b.cells)
}

func (b *broken) killings(p *page) {
	p.WriteString("\n## The tool is killed\n\nSIGKILL at the beginning of a step. The cell has the phase that `status` says then, from another machine and without the journal, who takes writes, and where that is the side that was to be closed, the longest that clients of PgBouncer waited. " +
		"The same command, run there, ends it each time.\n")
	p.head("step", "`cutover`", "`rollback`")
	for _, step := range b.killed {
		p.row("`"+step+"`", b.kills[step]["cutover"], b.kills[step]["rollback"])
	}
}

func (b *broken) afterOpen(p *page) {
	p.WriteString("\n## Something fails after open\n\nOne of two PgBouncers, a hook, a standby, a database or the journal fails at the beginning of a step after open, in turn in `cutover` and in `rollback`. " +
		"The cell has the exit code and the longest that any client waited that could be served; exit 6 names the steps that are still to do, and only those. The same command, run when the trouble is over, ends it each time.\n")
	p.grid("what", b.openSteps, b.troubles, b.after)
}

func (b *broken) hands(p *page) {
	p.WriteString("\n## Somebody does something by hand\n\nBetween `prepare` and the cutover. `status` names it within so long, with what to do; no cutover begins where anything would be missing. " +
		"`prepare` brings it along, or says what must be done first.\n")
	p.head("what", "seen after", "`prepare` says")
	for _, h := range b.byHand {
		p.row(h.what, cmp.Or(h.seen, "nothing is missing"), cmp.Or(h.said, "–"))
	}
}

func (b *broken) random(p *page) {
	p.WriteString("\n## Everything at random\n\n`bin/lab monkey --seed N`: two machines type commands, while the tool, servers, poolers, lines and journals break as the seed says. " +
		"Clients write rows, move money and take values of a sequence, directly and through two poolers, and others never stop trying to write to each side. " +
		"A violation is an acknowledged row that is lost or doubled, a sum that is wrong, a value handed out twice or going back, a moment at which both sides took writes, " +
		"an exit code that was not true, or clients that waited more than 10 s when nothing was broken and a command had ended. The longest wait is what they did wait.\n")
	p.head("seed", "rounds", "rows acknowledged", "values", "probes", "switches", "longest wait", "violations")
	kinds := map[string]int{}
	for _, r := range b.played {
		p.row(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[8])
		for f := range strings.SplitSeq(r[7], ", ") {
			if kind, n, ok := lastNumber(f); ok {
				kinds[kind] += n
			}
		}
	}
	p.head("broken", "times")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		p.row(kind, fmt.Sprint(kinds[kind]))
	}
}
