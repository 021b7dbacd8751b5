package main

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"
	"crossfade/upgrade/verify"

	"github.com/urfave/cli/v2"
)

type verifyOptions struct {
	common
}

func verifyCommand() command {
	return command{
		name: "verify", synopsis: "verify", short: "compare old and new while both run",
		about: `Compares every table of old with the same table of new, as the runbook's verify:
says (full compares rows, counts their number), and reports for each at which LSN
it was proven equal. Nothing is changed and no client waits.

While it runs no command may change the upgrade: those exit with 8, as it does
while one of them runs. Several verify may run at once.`,
		exits: []int{exit.Failed, exit.Gate, exit.Differences, exit.Held}, reads: true,
		ends: map[int]string{exit.Gate: "wrong phase"},
		run: func(ctx context.Context, _ *cli.Context, o common, out *output) error {
			return verifyOptions{o}.run(ctx, out)
		},
	}
}

func (o verifyOptions) run(ctx context.Context, out *output) error {
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		var equal, different, open atomic.Int64
		var failed atomic.Pointer[error]
		err := u.Each(func(p *upgrade.Upgrade) error {
			return p.Verify(ctx, func(r verify.Result) {
				t := tableOf(r)
				t.Cluster = p.Cluster()
				switch {
				case t.Equal == nil:
					open.Add(1)
				case *t.Equal:
					equal.Add(1)
				default:
					different.Add(1)
				}
				if err := out.result(t, t.Text); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}, injected(p.Telling(out.observe)))
		})
		if p := failed.Load(); p != nil {
			return *p
		}
		if compared := equal.Load() + different.Load() + open.Load(); err != nil && compared == 0 {
			return err
		}
		perr := out.result(nil, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s equal, %s different, %s not compared\n",
				report.Quantity(equal.Load(), "tables"), report.Count(different.Load()), report.Count(open.Load()))
			return err
		})
		if err != nil {
			return err
		}
		return perr
	})
}
