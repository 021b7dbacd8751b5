package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"crossfade/scenarios"

	"github.com/urfave/cli/v2"
)

// The table of playAll stands between these lines of a file.
const (
	tableBegin = "<!-- scenarios: bin/lab play --all --md writes this -->"
	tableEnd   = "<!-- /scenarios -->"
)

// playAll plays every scenario, or those that are named, one after the other, and
// writes the table of their results into a file. One that fails does not stop
// the others.
func playAll(c *cli.Context, names []string) error {
	for _, flag := range []string{"keep", "json"} {
		if c.Bool(flag) {
			return &usageError{"play: --all and --" + flag + " do not go together"}
		}
	}
	md := c.String("md")
	if md != "" {
		if err := withTable(md, "", false); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		names = scenarios.Names()
	}
	var rows []string
	var failed []string
	for _, name := range names {
		s, err := known(name)
		if err != nil {
			return err
		}
		limit := c.Duration("timeout")
		ctx, cancel := context.WithTimeoutCause(c.Context, limit, fmt.Errorf("the play took more than %s", limit))
		result, err := scenarios.Play(ctx, s, scenarios.Options{Crossfade: c.String("crossfade"), Out: c.App.Writer})
		cancel()
		if c.Context.Err() != nil {
			return context.Cause(c.Context)
		}
		if err != nil {
			failed = append(failed, name)
		}
		rows = append(rows, row(s, result, err))
	}
	table := "| scenario | | proven by others than crossfade | outage at the client | took |\n| --- | --- | --- | --- | --- |\n" + strings.Join(rows, "")
	if err := write(c.App.Writer, "\n%s", table); err != nil {
		return err
	}
	if md != "" {
		if err := withTable(md, table, true); err != nil {
			return err
		}
	}
	if failed != nil {
		return fmt.Errorf("%d of %d failed: %s", len(failed), len(names), strings.Join(failed, ", "))
	}
	return nil
}

// row is one play as a line of the table.
func row(s *scenarios.Scenario, r *scenarios.Result, err error) string {
	if r == nil {
		return fmt.Sprintf("| `%s` | %s | FAILED before it began: %v | | |\n", s.Name, s.Title, err)
	}
	claims := 0
	last := map[string]string{}
	for _, p := range r.Proofs {
		claims += len(p.Claims)
		for _, c := range p.Claims {
			last[c.What] = c.Says
		}
	}
	var says, outages []string
	if err != nil {
		says = append(says, "FAILED: "+strings.ReplaceAll(strings.SplitN(err.Error(), "\n", 2)[0], "|", "\\|"))
	} else if claims > 0 {
		says = append(says, fmt.Sprintf("%d claims true in %d proofs", claims, len(r.Proofs)))
	}
	if rows, ok := last["acknowledged rows, each once"]; ok {
		says = append(says, rows)
	}
	if standbys := last["standbys stream"]; standbys != "" {
		says = append(says, standbys)
	}
	for _, x := range r.Crossings {
		outages = append(outages, fmt.Sprintf("%d→%d %.0f ms", x.From, x.To, x.Outage*1000))
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %.0f s |\n", s.Name, s.Title, strings.Join(says, "; "), strings.Join(outages, ", "), r.Seconds)
}

// withTable puts a table between the marks of a file; without put it looks
// whether they are there.
func withTable(path, table string, put bool) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(b, []byte(tableBegin+"\n"))
	_, after, ends := bytes.Cut(rest, []byte(tableEnd))
	if !begins || !ends {
		return &usageError{fmt.Sprintf("play: --md %s: the lines %s and %s, between which the table goes, are not there", path, tableBegin, tableEnd)}
	}
	if !put {
		return nil
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s%s\n%s_Played %s._\n\n%s%s", before, tableBegin, table+"\n", time.Now().UTC().Format(time.DateOnly), tableEnd, after)
	return os.WriteFile(path, out.Bytes(), 0o644)
}
