package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Browser is a headless Chromium, to look at pages as their readers do. It
// opens files of this machine and nothing else.
type Browser struct {
	// Path is the program: Store.Program's "chromium".
	Path string
	// Dir is a folder for its profiles, which it makes anew for each page.
	Dir string
}

// Dump opens a file in a window of that width, lets its scripts run, and
// returns the document as it is then.
func (b Browser) Dump(ctx context.Context, page string, width int) (string, error) {
	return b.run(ctx, page, width, 900, "--dump-dom", "--virtual-time-budget=5000")
}

// Picture writes what a window of that size shows of a file as PNG; scale is
// how many pixels of the picture one of the page is.
func (b Browser) Picture(ctx context.Context, page, png string, width, height int, scale float64) error {
	_, err := b.run(ctx, page, width, height, "--screenshot="+png, "--hide-scrollbars", fmt.Sprintf("--force-device-scale-factor=%g", scale))
	if err == nil {
		_, err = os.Stat(png)
	}
	return err
}

// Print writes a file as it would be printed, as PDF.
func (b Browser) Print(ctx context.Context, page, pdf string) error {
	_, err := b.run(ctx, page, 1000, 1000, "--print-to-pdf="+pdf, "--no-pdf-header-footer")
	if err == nil {
		_, err = os.Stat(pdf)
	}
	return err
}

func (b Browser) run(ctx context.Context, page string, width, height int, args ...string) (string, error) {
	home, err := os.MkdirTemp(b.Dir, "chromium-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(home) }() // a profile that nobody needs any more
	page, err = filepath.Abs(page)
	if err != nil {
		return "", err
	}
	// Its sandbox does not work for root, nor everywhere for others, and what it
	// opens is ours. It is to talk to nobody.
	all := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-breakpad", "--disable-dev-shm-usage",
		"--user-data-dir=" + filepath.Join(home, "profile"), fmt.Sprintf("--window-size=%d,%d", width, height),
	}, args...)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.Path, append(all, "file://"+page)...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "DBUS_SESSION_BUS_ADDRESS=disabled:")
	if conf := b.fonts(home); conf != "" {
		cmd.Env = append(cmd.Env, "FONTCONFIG_FILE="+conf)
	}
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("chromium: %w: %s", err, tail(said.String(), 2000))
	}
	return out.String(), nil
}

// fonts is a configuration with the fonts that came with a fetched Chromium;
// "" where the machine has one of its own.
func (b Browser) fonts(home string) string {
	tree, _, fetched := strings.Cut(b.Path, "/usr/lib/chromium/")
	if _, err := os.Stat("/etc/fonts/fonts.conf"); err == nil || !fetched {
		return ""
	}
	conf := filepath.Join(home, "fonts.conf")
	text := fmt.Sprintf("<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n<fontconfig><dir>%s/usr/share/fonts</dir><cachedir>%s/fonts</cachedir></fontconfig>\n", tree, home)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return ""
	}
	return conf
}
