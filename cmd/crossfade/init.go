package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"crossfade/upgrade/draft"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

func initCommand() command {
	return command{
		name: "init", synopsis: "init --old CONNINFO --new CONNINFO [-o FILE]", short: "read the live clusters and write a commented runbook",
		about: `Reads the live clusters (standbys, cascades, synchronous names, delays, sizes)
and writes a commented runbook to stdout, or to FILE if that does not exist yet.
Nothing is changed on any server.

A connection string may name several hosts (host=a,b,c port=5432,5432,5433): each
is asked, so that standbys that do not run on their primary's port are found.
What cannot be known is a comment in the file, to be filled in; crossfade check
then says what blocks the upgrade.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "old", Usage: "the cluster that serves now: `CONNINFO`, as psql takes it"},
			&cli.StringFlag{Name: "new", Usage: "the cluster that will serve: `CONNINFO`"},
			&cli.StringFlag{Name: "o", Usage: "write to `FILE`"},
		},
		exits: []int{exit.Failed}, reads: true,
		run: func(ctx context.Context, c *cli.Context, _ common, out *output) error {
			for _, side := range []string{"old", "new"} {
				if c.String(side) == "" {
					return &usageError{says: "init needs --" + side, try: "crossfade init --help"}
				}
			}
			text, err := draft.Runbook(ctx, c.String("old"), c.String("new"))
			if err != nil {
				return err
			}
			d := report.Draft{File: c.String("o"), Text: text}
			if d.File != "" {
				if err := writeDraft(d); err != nil {
					return err
				}
				out.sayf("%s is written; next: crossfade check -f %s", d.File, d.File)
			}
			return out.result(d, func(w io.Writer) error {
				if d.File != "" {
					return nil
				}
				_, err := io.WriteString(w, d.Text)
				return err
			})
		},
	}
}

// writeDraft writes a runbook where there is none: one that exists has been
// worked on.
func writeDraft(d report.Draft) error {
	f, err := os.OpenFile(d.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &usageError{says: d.File + " exists; it is not overwritten", try: "another file with -o, or without -o to see what would be written"}
	}
	if err != nil {
		return fmt.Errorf("write the runbook: %w", err)
	}
	_, err = f.WriteString(d.Text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the runbook %s: %w", d.File, err)
	}
	return nil
}
