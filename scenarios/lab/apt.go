package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A distribution is this machine's, as apt is set up on it.
type distribution struct {
	id       string // debian or ubuntu
	codename string // of its own suite
	source   source // where its packages come from
}

// A source is one entry of apt's sources: a stanza of a .sources file, or a line of a .list.
type source struct {
	stanza  []string // lines of a stanza, without Suites, Components and Types
	options string   // of a line: "[signed-by=…]", may be empty
	uri     string   // of a line
}

// readDistribution finds out where this machine gets its packages. It reads apt's own configuration, which also stands on
// a machine that has never run apt-get update.
func readDistribution(ctx context.Context) (*distribution, error) {
	for _, program := range []string{"apt-get", "apt-config", "dpkg"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("no %s on this machine, so nothing can be fetched for it", program)
		}
	}
	release, err := readRelease("/etc/os-release")
	if err != nil {
		return nil, err
	}
	d := &distribution{codename: cmp.Or(release["UBUNTU_CODENAME"], release["VERSION_CODENAME"])}
	for _, id := range append([]string{release["ID"]}, strings.Fields(release["ID_LIKE"])...) {
		if suites[id] != nil {
			d.id = id
			break
		}
	}
	if d.id == "" {
		return nil, fmt.Errorf("this machine's distribution is %q, neither Debian nor Ubuntu", release["ID"])
	}
	out, err := run(ctx, plain(ctx, "apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"))
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(out) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, "'")
		if strings.HasPrefix(line, "LIST=") {
			files = append(files, value)
		} else if value != "" {
			files = append(files, glob(value, "*.list")...)
			files = append(files, glob(value, "*.sources")...)
		}
	}
	for _, file := range files {
		if s, ok := readSources(file, d.codename); ok {
			d.source = s
			return d, nil
		}
	}
	return nil, fmt.Errorf("no source of %s's packages in %s", d.codename, strings.Join(files, ", "))
}

// readRelease reads a file of NAME=value lines.
func readRelease(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = strings.Trim(value, `"'`)
		}
	}
	return values, nil
}

// readSources looks in one file of apt's sources for the entry that has the suite itself, not its updates.
func readSources(path, suite string) (source, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return source{}, false
	}
	if strings.HasSuffix(path, ".sources") {
		for stanza := range strings.SplitSeq("\n"+string(b), "\n\n") {
			if s, ok := readStanza(stanza, suite); ok {
				return s, true
			}
		}
		return source{}, false
	}
	scan := bufio.NewScanner(strings.NewReader(string(b)))
	for scan.Scan() {
		rest, ok := strings.CutPrefix(strings.TrimSpace(scan.Text()), "deb ")
		if !ok {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			inside, after, ok := strings.Cut(rest, "]")
			if !ok {
				continue
			}
			s.options, rest = inside+"] ", after
		}
		fields := strings.Fields(rest)
		if len(fields) >= 3 && fields[1] == suite && slices.Contains(fields[2:], "main") {
			s.uri = fields[0]
			return s, true
		}
	}
	return source{}, false
}

func readStanza(stanza, suite string) (source, bool) {
	var s source
	var field string
	values := map[string]string{}
	for line := range strings.Lines(stanza) {
		line = strings.TrimRight(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' {
			field = strings.ToLower(name)
			values[field] = value
		} else {
			values[field] += " " + line
		}
		switch field {
		case "types", "suites", "components", "architectures":
		default:
			s.stanza = append(s.stanza, line)
		}
	}
	has := func(name, want string) bool { return slices.Contains(strings.Fields(values[name]), want) }
	return s, has("types", "deb") && has("suites", suite) && has("components", "main") &&
		!strings.EqualFold(strings.TrimSpace(values["enabled"]), "no")
}

// lines is the entry of these types (deb, deb-src) for another suite, and the name its file must have.
func (s source) lines(suite, components string, types ...string) (name, text string) {
	if s.stanza != nil {
		return "lab.sources", fmt.Sprintf("Types: %s\nSuites: %s\nComponents: %s\n%s\n", strings.Join(types, " "), suite, components, strings.Join(s.stanza, "\n"))
	}
	for _, t := range types {
		text += fmt.Sprintf("%s %s%s %s %s\n", t, s.options, s.uri, suite, components)
	}
	return "lab.list", text
}

// An archive is one suite as apt sees it from a folder of its own, with lists, cache and status of its own, so that it
// needs no root, knows of nothing that is installed, and touches nothing of the machine's; what the machine says about
// proxies, certificates and keys holds.
type archive struct {
	config string // apt.conf
	debs   string // what is downloaded ends up here
}

// open reads the lists of a suite into work; types are deb and deb-src, what is wanted of it.
func (d *distribution) open(ctx context.Context, work, arch, suite string, types ...string) (*archive, error) {
	components := "main"
	if d.id == "ubuntu" {
		components = "main universe"
	}
	state := filepath.Join(work, "apt")
	a := &archive{config: filepath.Join(state, "apt.conf"), debs: filepath.Join(state, "debs")}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial", "sources", "preferences", "debs"} {
		if err := os.MkdirAll(filepath.Join(state, dir), 0o755); err != nil {
			return nil, err
		}
	}
	name, text := d.source.lines(suite, components, types...)
	config := fmt.Sprintf(`#clear APT::Architectures;
#clear APT::Update;
#clear DPkg;
#clear APT::Default-Release;
#clear Acquire::IndexTargets::deb::DEP-11;
Dir::State %q;
Dir::State::status %q;
Dir::Cache %q;
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts %q;
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts %q;
APT::Architecture %q;
APT::Architectures { %q; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
`, filepath.Join(state, "state"), filepath.Join(state, "status"), filepath.Join(state, "cache"),
		filepath.Join(state, "sources"), filepath.Join(state, "preferences"), arch, arch)
	for file, text := range map[string]string{"status": "", "apt.conf": config, "sources/" + name: text} {
		if err := os.WriteFile(filepath.Join(state, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	_, err := a.get(ctx, "update", "-o", "APT::Update::Error-Mode=any")
	return a, err
}

// get runs apt-get and returns what it printed.
func (a *archive) get(ctx context.Context, args ...string) (string, error) {
	cmd := plain(ctx, "apt-get", append([]string{"-qq", "-c", a.config}, args...)...)
	cmd.Dir = a.debs
	return run(ctx, cmd)
}

// download fetches a parcel's packages into work.
func (d *distribution) download(ctx context.Context, work, arch string, p parcel) ([]string, error) {
	a, err := d.open(ctx, work, arch, p.suite, "deb")
	if err != nil {
		return nil, err
	}
	out, err := a.get(ctx, append([]string{"--simulate", "install"}, p.packages...)...)
	if err != nil {
		return nil, err
	}
	names := needed(out, p.packages)
	if len(names) == 0 {
		return nil, errors.New("apt-get names no packages")
	}
	if _, err := a.get(ctx, append([]string{"download"}, names...)...); err != nil {
		return nil, err
	}
	return glob(a.debs, "*.deb"), nil
}

// needed picks from what apt-get would install what a server has use for: what was asked for, and libraries.
func needed(simulated string, asked []string) []string {
	var names []string
	for line := range strings.Lines(simulated) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "Inst" {
			continue
		}
		isBallast := slices.ContainsFunc(ballast, func(prefix string) bool { return strings.HasPrefix(fields[1], prefix) })
		if slices.Contains(asked, fields[1]) || !isBallast {
			names = append(names, fields[1])
		}
	}
	return names
}
