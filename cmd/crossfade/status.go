package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

type statusOptions struct {
	common
	Watch    bool
	ExitCode bool
}

// watchEvery is how often --watch looks.
const watchEvery = 2 * time.Second

func statusCommand() command {
	return command{
		name: "status", synopsis: "status [--watch] [--exit-code]", short: "who is writable now, how far every link is, what to type next",
		about: `Asks the servers: who takes writes now, where every link is by LSN, every
standby as pg_stat_replication shows it, which gates are open, how much WAL old
keeps, which step is in progress. The last line is the command to type next.

It needs no journal and no lock: it may be run at any time, from any machine
with the runbook, also beside another command. It exits with 0 if the servers could be queried.

With --exit-code: 0 healthy, 4 a gate is closed, 6 none or both are writable, 1
a server did not answer. With --watch it looks every 2 s until it is
interrupted; with both, until it is no longer healthy.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "watch", Usage: "look again every 2 s; on a terminal in place"},
			&cli.BoolFlag{Name: "exit-code", Usage: "say by the exit code whether the upgrade is healthy"},
		},
		exits: []int{exit.Failed, exit.Gate, exit.AfterOpen}, reads: true,
		ends: map[int]string{
			exit.Done:      "the servers could be queried; with --exit-code: and the upgrade is healthy",
			exit.Failed:    "no server could be queried, or the results not be written; with --exit-code: a server did not answer",
			exit.Gate:      "with --exit-code alone: a gate is closed",
			exit.AfterOpen: "with --exit-code alone: neither cluster takes writes, or both do",
		},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			return statusOptions{o, c.Bool("watch"), c.Bool("exit-code")}.run(ctx, out)
		},
	}
}

func (o statusOptions) run(ctx context.Context, out *output) error {
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		if o.Watch {
			return o.watch(ctx, u, out)
		}
		st, err := u.Status(ctx)
		// What could be asked is shown, whatever could not.
		if perr := out.result(st, st.Text); perr != nil {
			return perr
		}
		if err != nil {
			return err
		}
		return o.judge(st)
	})
}

// judge is the error of --exit-code.
func (o statusOptions) judge(st report.Status) error {
	if !o.ExitCode {
		return nil
	}
	e := &exit.Error{Code: st.Exit(), Hint: st.Next}
	switch e.Code {
	case exit.Done:
		return nil
	case exit.AfterOpen:
		e.Says = "writable: " + string(st.Writable)
	case exit.Gate:
		e.Says = "a gate is closed"
		for _, g := range st.Gates {
			if !g.OK {
				e.Says = fmt.Sprintf("gate %s is closed: %s", g.ID, g.Says)
				break
			}
		}
	default:
		e.Says = "a server did not answer"
		if len(st.Silent) > 0 {
			e.Says, e.On = fmt.Sprintf("%s did not answer: %s", st.Silent[0].On, st.Silent[0].Says), st.Silent[0].On
		}
	}
	return e
}

func (o statusOptions) watch(ctx context.Context, u *upgrade.Upgrade, out *output) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	inPlace := onTerminal(out.stdout)
	for first := true; ; first = false {
		st, err := u.Status(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if perr := o.show(out, st, err, inPlace, first); perr != nil {
			return perr
		}
		if jerr := o.judge(st); jerr != nil {
			return jerr
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// show prints one look of --watch: on a terminal over the one before, elsewhere
// below it.
func (o statusOptions) show(out *output, st report.Status, asked error, inPlace, first bool) error {
	if out.json {
		return out.result(st, nil)
	}
	var b bytes.Buffer
	if err := st.Text(&b); err != nil {
		return err
	}
	if asked != nil {
		fmt.Fprintf(&b, "\ncrossfade: %v\n", asked)
	}
	if !inPlace {
		if !first {
			b.WriteString("\n")
		}
		out.put(printed{to: out.stdout, text: b.Bytes()})
		return nil
	}
	out.put(printed{to: out.stdout, text: frame(b.Bytes(), first), exact: true})
	return nil
}

// frame is a text to be drawn over the one before, without clearing it first, so
// that nothing flickers. The text is made visible: what acts on the terminal is
// this program's own.
func frame(text []byte, first bool) []byte {
	const home, clearScreen, clearLine, clearBelow = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
	start := home
	if first {
		start = clearScreen + home
	}
	text = bytes.ReplaceAll(report.Visible(text), []byte("\n"), []byte(clearLine+"\n"))
	return slices.Concat([]byte(start), text, []byte(clearBelow))
}

func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
