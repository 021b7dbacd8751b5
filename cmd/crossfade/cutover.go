package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
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
	WithoutNew bool   // rollback only
	Cluster    string // of several new ones; "": all
}

func crossFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "now", Usage: "ignore the window"},
		&cli.BoolFlag{Name: "wait", Usage: "wait for the window"},
		&cli.BoolFlag{Name: "yes", Usage: "do not ask for the upgrade's name; also answers approve: prompt, never approve: file"},
		&cli.StringFlag{Name: "cluster", Usage: "only `NAME`, of several new clusters"},
	}
}

// crossEnds are the codes that a signal decides about: it is undone first.
var crossEnds = map[int]string{
	exit.Undone:      "failed or was interrupted before open, in the gates too, and was undone; the cluster that served before serves again (seen, not assumed; otherwise 1)",
	exit.Interrupted: "interrupted (SIGINT, SIGTERM) before the first step; nothing was changed. Later a signal is 5, after open 6",
}

var crossExits = []int{exit.Failed, exit.Gate, exit.Undone, exit.AfterOpen, exit.Held}

func cutoverCommand() command {
	return command{
		name: "cutover", synopsis: "cutover [--now | --wait] [--yes] [--cluster NAME]", short: "move the writes to new: all or nothing up to open",
		about: `Waits for the gates and the approval, then closes old with a fence, waits until
new has and shows every row, makes and proves the way back, and opens new. Up to
the step open a failure undoes everything and old serves again (exit 5); after
it, the only way is forward (exit 6: run it again).

It shows what it will do and asks you to type the upgrade's name. Without a terminal and
without --yes it ends with 4 at once. Outside its window it ends with 4 and says
when the next one is; --wait waits for it, --now ignores it.

When a cutover was cut off, run it again: it asks the servers whether to go on
or to undo. crossfade status says first who is writable.

With several new clusters they are cut over one after the other, in the order of
the runbook, each all or nothing by itself: where one fails it is undone, those
before it stay open, and those after it are not begun. Those that are open
already are passed over. --cluster does one alone.`,
		flags: crossFlags(), exits: crossExits, ends: crossEnds,
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			x := crossOptions{common: o, Now: c.Bool("now"), Wait: c.Bool("wait"), Yes: c.Bool("yes"), Cluster: c.String("cluster")}
			return x.run(ctx, out, crossing{"cutover", "cutover", "new", report.PhaseOpen, (*upgrade.Upgrade).Cutover})
		},
	}
}

// crossing is what cutover and rollback differ in.
type crossing struct {
	name, preview string
	opens         string       // the side that takes writes afterwards
	behind        report.Phase // the phase after its point of no return
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
	agree := consent{plan: x.preview, yes: o.Yes, window: upgrade.CutoverOptions{Now: o.Now, Wait: o.Wait}}
	if err := agree.possible(out); err != nil {
		return err
	}
	return with(ctx, rb, x.behind, func(whole *upgrade.Upgrade) error {
		u, err := whole.Select(o.Cluster)
		if err != nil {
			return err
		}
		if err := agree.given(ctx, u, rb.Upgrade, out); err != nil {
			return err
		}
		says := ""
		err = u.Each(func(p *upgrade.Upgrade) error {
			done, err := x.do(p, ctx, upgrade.CutoverOptions{Now: o.Now, Wait: o.Wait, WithoutNew: o.WithoutNew, Approved: true, Started: started}, injected(p.Telling(out.observe)))
			if perr := crossed(p, done, x.opens, err, out); perr != nil {
				return perr
			}
			if done == nil && err == nil {
				says = fmt.Sprintf("nothing to do: %s takes writes already", p.Calls(x.opens))
			}
			return err
		})
		if err != nil {
			return err
		}
		return nextIs(ctx, whole, says, out)
	})
}

// crossed tells what a cutover or rollback has measured. With --json that is reported
// of a failed one too.
func crossed(p *upgrade.Upgrade, done *report.Cutover, opens string, err error, out *output) error {
	if done == nil {
		return nil
	}
	done.Cluster = p.Cluster()
	if perr := out.result(*done, nil); perr != nil || err != nil {
		return perr
	}
	return out.result(nil, func(w io.Writer) error { return done.Text(w, p.Calls(opens)) })
}
