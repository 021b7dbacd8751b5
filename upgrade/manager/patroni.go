package manager

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// dynamicFile is where Patroni keeps, in the data directory, the settings that
// all of its nodes share, as this node has heard them last.
const dynamicFile = "patroni.dynamic.json"

// defaultPort is that of Patroni's REST API.
const defaultPort = "8008"

// Patroni is a Patroni on every node, paused by the setting pause that all
// of them share.
type Patroni struct {
	o          Options
	system     string // identifier of the cluster that it must be Patroni of
	candidates []string
	client     *http.Client
	user, pass string
	base       string // the API that answered last
}

// newPatroni takes Patroni's own variables for what its API may demand: TLS as
// patronictl has it, and the user of the requests that change something.
func newPatroni(o Options, system string) (*Patroni, error) {
	p := &Patroni{o: o, system: system, user: os.Getenv("PATRONI_RESTAPI_USERNAME"), pass: os.Getenv("PATRONI_RESTAPI_PASSWORD")}
	for _, u := range o.Patroni {
		p.candidates = append(p.candidates, strings.TrimRight(u, "/"))
	}
	if p.candidates == nil {
		for _, s := range append([]*pg.Server{o.Primary}, o.Standbys...) {
			host, _ := s.Host()
			if host == "" || strings.HasPrefix(host, "/") {
				host = "localhost"
			}
			if at := "http://" + net.JoinHostPort(host, defaultPort); !slices.Contains(p.candidates, at) {
				p.candidates = append(p.candidates, at)
			}
		}
	}
	conf := &tls.Config{InsecureSkipVerify: os.Getenv("PATRONI_CTL_INSECURE") == "true"}
	if file := os.Getenv("PATRONI_CTL_CACERT"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("PATRONI_CTL_CACERT: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("PATRONI_CTL_CACERT: no certificate in %s", file)
		}
	}
	if file := os.Getenv("PATRONI_CTL_CERTFILE"); file != "" {
		key := os.Getenv("PATRONI_CTL_KEYFILE")
		if key == "" {
			key = file
		}
		cert, err := tls.LoadX509KeyPair(file, key)
		if err != nil {
			return nil, fmt.Errorf("PATRONI_CTL_CERTFILE: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	p.client = &http.Client{Timeout: askTimeout, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	return p, nil
}

// Name is Patroni.
func (p *Patroni) Name() string { return "Patroni" }

// request sends one request to an API; body nil is none. Nothing of the answer
// but what was asked for is kept.
func (p *Patroni) request(ctx context.Context, method, at string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if p.user != "" && method != http.MethodGet {
		req.SetBasicAuth(p.user, p.pass)
	}
	answer, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, at, err)
	case answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s %s: %s; give PATRONI_RESTAPI_USERNAME and PATRONI_RESTAPI_PASSWORD in the environment", method, at, answer.Status)
	case method != http.MethodGet && answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: %s: %s", method, at, answer.Status, strings.TrimSpace(string(text)))
	}
	if into == nil {
		return nil
	}
	// GET /patroni answers 503 for a node that does not run, and reports it all the same.
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s %s: %s: %w", method, at, answer.Status, err)
	}
	return nil
}

// ErrOther is an API that belongs to another cluster.
var ErrOther = errors.New("it is Patroni of another cluster")

// find is an API that answers and belongs to this cluster.
func (p *Patroni) find(ctx context.Context) (string, error) {
	var errs []error
	candidates := p.candidates
	if p.base != "" {
		candidates = append([]string{p.base}, candidates...)
	}
	for _, base := range candidates {
		var node struct {
			System string `json:"database_system_identifier"`
		}
		err := p.request(ctx, http.MethodGet, base+"/patroni", nil, &node)
		if err == nil && node.System != p.system {
			err = fmt.Errorf("%s: %w (system identifier %q)", base, ErrOther, node.System)
		}
		if err == nil {
			p.base = base
			return base, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no REST API of Patroni answers: %w", errors.Join(errs...))
}

// Look asks every member.
func (p *Patroni) Look(ctx context.Context) (State, error) {
	base, err := p.find(ctx)
	if err != nil {
		return State{}, err
	}
	var cluster struct {
		Members []struct {
			Name  string `json:"name"`
			Role  string `json:"role"`
			State string `json:"state"`
			API   string `json:"api_url"`
		} `json:"members"`
	}
	if err := p.request(ctx, http.MethodGet, base+"/cluster", nil, &cluster); err != nil {
		return State{}, err
	}
	var d dynamic
	if err := p.request(ctx, http.MethodGet, base+"/config", nil, &d); err != nil {
		return State{}, err
	}
	s := State{Nodes: make([]Node, len(cluster.Members)), Synchronous: d.Sync != nil && d.Sync != false}
	var g errgroup.Group
	for i, m := range cluster.Members {
		n := &s.Nodes[i]
		*n = Node{Name: m.Name, Role: m.Role, Runs: true}
		switch m.Role {
		case "leader", "master":
			n.Role = "primary"
		case "replica", "sync_standby", "quorum_standby":
			n.Role = "standby"
		}
		g.Go(func() error {
			var node struct {
				Pause bool `json:"pause"`
			}
			n.Err = p.request(ctx, http.MethodGet, m.API, nil, &node)
			n.Held = node.Pause
			return nil
		})
	}
	_ = g.Wait() // the functions return no error
	slices.SortFunc(s.Nodes, func(a, b Node) int {
		if (a.Role == "primary") != (b.Role == "primary") {
			return strings.Compare(a.Role, b.Role) // before standby
		}
		return strings.Compare(a.Name, b.Name)
	})
	return s, ctx.Err()
}

// Hold is one setting for all nodes.
func (p *Patroni) Hold(State) []flow.Effect {
	return []flow.Effect{p.change(map[string]any{"pause": true})}
}

// Release takes that setting away.
func (p *Patroni) Release(State, []string) []flow.Effect {
	return []flow.Effect{p.change(map[string]any{"pause": nil})}
}

// change is a request that changes settings; null takes one away.
func (p *Patroni) change(settings map[string]any) flow.Effect {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(settings); err != nil {
		panic("manager: " + err.Error()) // maps of plain values always encode
	}
	return flow.Effect{On: p.Name(), Request: "PATCH /config " + strings.TrimSpace(b.String())}
}

// Do sends a request to an API that answers.
func (p *Patroni) Do(ctx context.Context, e flow.Effect) error {
	base, err := p.find(ctx)
	if err != nil {
		return err
	}
	method, rest, _ := strings.Cut(e.Request, " ")
	path, body, _ := strings.Cut(rest, " ")
	return p.request(ctx, method, base+path, []byte(body), nil)
}

// matcher is one entry of ignore_slots, as it stands there.
type matcher = map[string]any

// dynamic is what the nodes share.
type dynamic struct {
	Sync   any       `json:"synchronous_mode"` // false, true, or from 4 on quorum
	Ignore []matcher `json:"ignore_slots"`
}

// names are the slots that are left alone by name.
func (d dynamic) names() map[string]bool {
	all := map[string]bool{}
	for _, m := range d.Ignore {
		if name, ok := m["name"].(string); ok {
			all[name] = true
		}
	}
	return all
}

func (p *Patroni) config(ctx context.Context) (dynamic, error) {
	var d dynamic
	base, err := p.find(ctx)
	if err == nil {
		err = p.request(ctx, http.MethodGet, base+"/config", nil, &d)
	}
	return d, err
}

// Spares says whether Patroni leaves all of these logical slots alone. It drops
// every slot that it does not know, unless it is paused.
func (p *Patroni) Spares(ctx context.Context, slots []string) (bool, error) {
	d, err := p.config(ctx)
	if err != nil {
		return false, err
	}
	return d.spares(slots), nil
}

func (d dynamic) spares(slots []string) bool {
	have := d.names()
	return !slices.ContainsFunc(slots, func(name string) bool { return !have[name] })
}

// Spare makes it leave slots alone, beside those that it does already.
func (p *Patroni) Spare(ctx context.Context, slots []string) (flow.Effect, error) {
	d, err := p.config(ctx)
	if err != nil {
		return flow.Effect{}, err
	}
	have := d.names()
	for _, name := range slots {
		if !have[name] {
			d.Ignore = append(d.Ignore, matcher{"name": name, "type": "logical", "plugin": "pgoutput"})
		}
	}
	return p.change(map[string]any{"ignore_slots": d.Ignore}), nil
}

// Forget takes slots whose name begins so out of those that are left alone;
// nil where there is none.
func (p *Patroni) Forget(ctx context.Context, prefixes ...string) ([]flow.Effect, error) {
	d, err := p.config(ctx)
	if err != nil {
		return nil, err
	}
	before := len(d.Ignore)
	d.Ignore = slices.DeleteFunc(d.Ignore, func(m matcher) bool {
		name, _ := m["name"].(string)
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	})
	switch {
	case len(d.Ignore) == before:
		return nil, nil
	case len(d.Ignore) == 0:
		return []flow.Effect{p.change(map[string]any{"ignore_slots": nil})}, nil
	}
	return []flow.Effect{p.change(map[string]any{"ignore_slots": d.Ignore})}, nil
}

// AwaitSpared waits until the primary's Patroni has heard of it: it looks every
// loop_wait, and writes down what it has read in the data directory.
func (p *Patroni) AwaitSpared(ctx context.Context, slots []string) error {
	return pg.Poll(ctx, 300*time.Millisecond, "Patroni of the primary to hear of ignore_slots", func(ctx context.Context) (bool, error) {
		var text string
		err := p.o.Sessions.Do(ctx, p.o.Primary, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT pg_read_file($1)", dynamicFile).Scan(&text)
		})
		if err != nil {
			return false, &pg.Error{Doing: "read " + dynamicFile, On: p.o.Primary.String(), Hint: "the tool's role needs EXECUTE on pg_read_file(text)", Err: err}
		}
		var d dynamic
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return false, nil // it is being written
		}
		return d.spares(slots), nil
	})
}

// Address says whether s is an address of a REST API as the runbook has it.
func Address(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.Fragment == ""
}
