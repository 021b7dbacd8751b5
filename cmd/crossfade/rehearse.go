package main

import (
	"context"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"

	"github.com/urfave/cli/v2"
)

type rehearseOptions struct {
	crossOptions
	WithTraffic bool
}

func rehearseCommand() command {
	return command{
		name: "rehearse", synopsis: "rehearse [--with-traffic] [--now | --wait] [--yes] [--cluster NAME]", short: "the cutover's reversible steps, timed, then undone",
		about: `A measured forecast of the outage: takes the cutover's own steps, with the real
plan under the real load, up to the proof of the way back, times each and undoes
them. Old is not closed and new not opened; sequences are read and not set;
no transaction is terminated (cutover.kill_after is ignored), and hooks are not
run.

Writers wait for the locks as in the cutover, within the same budget; how long
the longest of them waited is printed, and that no statement was refused. (Where
an event trigger logs what is applied, DDL is refused as in the cutover, and
counted: it would go unlogged.) Clients are not paused in the poolers, unless
--with-traffic is given.

It asks for approval and keeps the window as cutover does. What it has measured
is remembered on old: cutover shows it beside what it takes, plan as forecast;
the median of the last three counts. A rehearsal that was killed is undone by
the next rehearse, cutover, prepare or abort.`,
		flags: append([]cli.Flag{&cli.BoolFlag{Name: "with-traffic", Usage: "pause clients in the poolers, too"}}, crossFlags()...),
		exits: []int{exit.Failed, exit.Gate, exit.Undone, exit.Held},
		ends: map[int]string{
			exit.Undone:      "the rehearsal failed or was interrupted, and was undone; the old cluster serves (seen, not assumed; otherwise 1)",
			exit.Interrupted: "interrupted (SIGINT, SIGTERM) before the first step; nothing was changed",
		},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			x := crossOptions{common: o, Now: c.Bool("now"), Wait: c.Bool("wait"), Yes: c.Bool("yes"), Cluster: c.String("cluster")}
			return rehearseOptions{x, c.Bool("with-traffic")}.run(ctx, out)
		},
	}
}

func (o rehearseOptions) run(ctx context.Context, out *output) error {
	started := time.Now()
	if err := o.possible("rehearse"); err != nil {
		return err
	}
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	agree := consent{plan: "rehearse", yes: o.Yes, window: upgrade.CutoverOptions{Now: o.Now, Wait: o.Wait}}
	if o.WithTraffic {
		agree.plan = "rehearse --with-traffic"
	}
	if err := agree.possible(out); err != nil {
		return err
	}
	return with(ctx, rb, "", func(whole *upgrade.Upgrade) error {
		u, err := whole.Select(o.Cluster)
		if err != nil {
			return err
		}
		if err := agree.given(ctx, u, rb.Upgrade, out); err != nil {
			return err
		}
		agreed := upgrade.CutoverOptions{Now: o.Now, Wait: o.Wait, Approved: true, Started: started}
		err = u.Each(func(p *upgrade.Upgrade) error {
			done, err := p.Rehearse(ctx, upgrade.RehearseOptions{CutoverOptions: agreed, WithTraffic: o.WithTraffic}, injected(p.Telling(out.observe)))
			if done != nil {
				// With --json what was measured is reported for a failed one too.
				done.Cluster = p.Cluster()
				if perr := out.result(*done, nil); perr != nil {
					return perr
				}
			}
			if err != nil {
				return err
			}
			return out.result(nil, done.Text)
		})
		if err != nil {
			return err
		}
		return nextIs(ctx, whole, "", out)
	})
}
