package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

// The commands of the contract that this version does not have yet. They are
// listed, take their flags, and say so: exit 2, nothing is touched.

func later(name, synopsis, short, about, instead string, flags ...cli.Flag) command {
	return command{
		name: name, synopsis: synopsis, short: short + " (not in this version)", about: about + "\n\nNot in this version: " + instead + ".", flags: flags,
		run: func(context.Context, *cli.Context, common, *output) error { return notYet(name, instead) },
	}
}

func initCommand() command {
	return later("init", "init --old CONNINFO --new CONNINFO [-o FILE]", "look at the live clusters and write a commented runbook",
		"Looks at the live clusters (standbys, cascades, synchronous names, delays, sizes)\nand writes a commented runbook.",
		"write the runbook by hand as docs/contract.md shows it; crossfade check reads it first",
		&cli.StringFlag{Name: "old", Usage: "the cluster that serves now: `CONNINFO`"},
		&cli.StringFlag{Name: "new", Usage: "the cluster that will serve: `CONNINFO`"},
		&cli.StringFlag{Name: "o", Usage: "write to `FILE`"})
}

func reportCommand() command {
	return later("report", "report -o FILE", "the evidence: what was done when, forecast beside actual",
		"Writes the evidence: what was done when, forecast beside actual, LSNs,\nverification, the lag curve; HTML, Markdown or JSON by the file's ending.",
		"the commands' own --json output is the evidence so far",
		&cli.StringFlag{Name: "o", Usage: "write to `FILE`"})
}
