package main

import (
	"os"
	"path/filepath"

	"crossfade/scenarios/lab"

	"github.com/urfave/cli/v2"
)

func screenshotCommand() *cli.Command {
	return &cli.Command{
		Name: "screenshot", Usage: "show the top of an HTML file as a browser does, as PNG", ArgsUsage: "PNG", Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "of", Required: true, Usage: "the page is `FILE`"},
			&cli.IntFlag{Name: "width", Value: 1000, Usage: "of the window, in `PIXELS`"},
			&cli.IntFlag{Name: "height", Value: 1120, Usage: "of the window, in `PIXELS`"},
		},
		Action: func(c *cli.Context) error {
			args, err := words(c, 1, 1)
			if err != nil {
				return err
			}
			say := sayer(c.App.ErrWriter)
			path, err := (&lab.Store{Say: func(line string) { say("lab", line) }}).Program(c.Context, "chromium")
			if err != nil {
				return err
			}
			dir, err := os.MkdirTemp("", "lab-")
			if err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(dir) }() // the browser's profile
			png, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return lab.Browser{Path: path, Dir: dir}.Picture(c.Context, c.String("of"), png, c.Int("width"), c.Int("height"), 1)
		},
	}
}
