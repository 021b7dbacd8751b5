package main

import (
	"context"
	_ "embed"

	"github.com/urfave/cli/v2"
)

//go:embed completion/crossfade.bash
var completionBash string

//go:embed completion/crossfade.zsh
var completionZsh string

func completionCommand() command {
	return command{
		name: "completion", synopsis: "completion bash|zsh|fish", short: "print the completion of a shell",
		about: `Prints what makes the shell complete commands and flags:

  bash   source <(crossfade completion bash)
  zsh    source <(crossfade completion zsh)
  fish   crossfade completion fish | source`,
		words: []string{"bash", "zsh", "fish"}, reads: true,
		run: func(_ context.Context, c *cli.Context, _ common, out *output) error {
			text := completionBash
			switch c.Args().First() {
			case "zsh":
				text = completionZsh
			case "fish":
				fish, err := c.App.ToFishCompletion()
				if err != nil {
					return err
				}
				text = fish
			}
			printText(out, text)
			return nil
		},
	}
}
