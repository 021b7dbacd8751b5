package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

// crossOptions are those of cutover and of rollback, which is the same with
// the ends swapped.
type crossOptions struct {
	common
	Now, Wait  bool
	Yes        bool
	WithoutNew bool // rollback only
}

func crossFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "now", Usage: "ignore the window"},
		&cli.BoolFlag{Name: "wait", Usage: "wait for the window"},
		&cli.BoolFlag{Name: "yes", Usage: "do not ask for the upgrade's name; also answers approve: prompt, never approve: file"},
	}
}

var crossExits = []int{upgrade.ExitFailed, upgrade.ExitGate, upgrade.ExitUndone, upgrade.ExitBehind, upgrade.ExitHeld}

func cutoverCommand() command {
	return command{
		name: "cutover", synopsis: "cutover [--now | --wait] [--yes]", short: "move the writes to new: all or nothing up to open",
		about: `Waits for the gates and the approval, then closes old behind a fence, waits until
new has and shows every row, makes and proves the way back, and opens new. Up to
the step open a failure undoes everything and old serves again (exit 5); behind
it there is only forward (exit 6: run it again).

It shows what it will do and asks for the upgrade's name. Without a terminal and
without --yes it ends with 4 at once. Outside its window it ends with 4 and says
when the next one is; --wait waits for it, --now ignores it.

When a cutover was cut off, run it again: it asks the servers whether to go on
or to undo. crossfade status says first who is writable.`,
		flags: crossFlags(), exits: crossExits,
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			x := crossOptions{common: o, Now: c.Bool("now"), Wait: c.Bool("wait"), Yes: c.Bool("yes")}
			return x.run(ctx, out, crossing{"cutover", "cutover", "new", report.PhaseOpen, (*upgrade.Upgrade).Cutover})
		},
	}
}

// crossing is what cutover and rollback differ in.
type crossing struct {
	name, preview string
	opens         string       // the side that takes writes afterwards
	behind        report.Phase // the phase behind its point of no return
	do            func(*upgrade.Upgrade, context.Context, upgrade.CutoverOptions, func(flow.Event)) (*report.Cutover, error)
}

// possible refuses flags that contradict each other.
func (o crossOptions) possible(command string) error {
	if o.Now && o.Wait {
		return &usageError{says: command + ": --now and --wait contradict each other", try: "crossfade " + command + " --wait"}
	}
	return nil
}

func (o crossOptions) run(ctx context.Context, out *output, x crossing) error {
	started := time.Now()
	if err := o.possible(x.name); err != nil {
		return err
	}
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	agree := consent{plan: x.preview, yes: o.Yes}
	if err := agree.possible(out); err != nil {
		return err
	}
	return with(ctx, rb, x.behind, func(u *upgrade.Upgrade) error {
		if err := agree.given(ctx, u, rb.Upgrade, out); err != nil {
			return err
		}
		done, err := x.do(u, ctx, upgrade.CutoverOptions{Now: o.Now, Wait: o.Wait, WithoutNew: o.WithoutNew, Approved: true, Started: started}, injected(out.observe))
		if done != nil {
			// With --json what was measured is told of a failed one too.
			if perr := out.result(*done, nil); perr != nil {
				return perr
			}
		}
		if err != nil {
			return err
		}
		if done == nil {
			return nextIs(ctx, u, fmt.Sprintf("nothing to do: %s takes writes already", x.opens), out)
		}
		err = out.result(nil, func(w io.Writer) error { return done.Text(w, x.opens) })
		return errors.Join(err, nextIs(ctx, u, "", out))
	})
}
