package main

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

func pictureCommand() *cli.Command {
	return &cli.Command{
		Name: "picture", Usage: "draw what is read, as a terminal would show it, as SVG", Hidden: true,
		Action: func(c *cli.Context) error {
			if _, err := words(c, 0, 0); err != nil {
				return err
			}
			return picture(os.Stdin, c.App.Writer)
		},
	}
}

// Sizes in pixels. A character is as wide as textLength makes it, whatever
// font the reader has.
const (
	fontSize   = 13
	charWidth  = 7.8
	lineHeight = 18
	margin     = 16
)

// inks are the colours of lines and words, the first that fits.
var inks = []struct{ prefix, colour string }{
	{"crossfade ", "#e5c07b"},
	{"proof", "#e5c07b"},
	{"proven", "#e5c07b"},
	{"step ", "#e5c07b"},
	{"passed", "#98c379"},
	{"FAILED", "#e06c75"},
	{"    ", "#7f848e"},
}

// picture draws text as an SVG.
func picture(from io.Reader, to io.Writer) error {
	var lines []string
	columns := 0
	scan := bufio.NewScanner(from)
	for scan.Scan() {
		lines = append(lines, scan.Text())
		columns = max(columns, utf8.RuneCountInString(scan.Text()))
	}
	if err := scan.Err(); err != nil {
		return err
	}
	var b strings.Builder
	width, height := float64(columns)*charWidth+2*margin, len(lines)*lineHeight+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="#21252b"/>`+"\n")
	fmt.Fprintf(&b, `<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="%d" xml:space="preserve" style="white-space: pre" fill="#d7dae0">`+"\n", fontSize)
	for i, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		ink := ""
		for _, k := range inks {
			if strings.HasPrefix(line, k.prefix) {
				ink = ` fill="` + k.colour + `"`
				break
			}
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%.1f"%s>`, margin, margin+(i+1)*lineHeight-5, float64(utf8.RuneCountInString(line))*charWidth, ink)
		if err := xml.EscapeText(&b, []byte(line)); err != nil {
			return err
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	text := b.String()
	for word, colour := range map[string]string{" true ": "#98c379", " FALSE ": "#e06c75"} {
		text = strings.ReplaceAll(text, word, ` <tspan fill="`+colour+`">`+strings.TrimSpace(word)+"</tspan> ")
	}
	return write(to, "%s", text)
}
