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

func reportCommand() command {
	return later("report", "report -o FILE", "the evidence: what was done when, forecast beside actual",
		"Writes the evidence: what was done when, forecast beside actual, LSNs,\nverification, the lag curve; HTML, Markdown or JSON by the file's ending.",
		"the commands' own --json output is the evidence so far",
		&cli.StringFlag{Name: "o", Usage: "write to `FILE`"})
}
