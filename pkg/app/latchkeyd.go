package app

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/httpapi"
	"github.com/latchkey/latchkey/pkg/issuer"
	"github.com/latchkey/latchkey/pkg/publish"
	"github.com/latchkey/latchkey/pkg/seal"
	"github.com/latchkey/latchkey/pkg/verify"
)

const shutdownPatience = 10 * time.Second

// Process is what a program is given by whoever starts it.
type Process struct {
	Args           []string // without the program's name
	Getenv         func(string) string
	Stdout, Stderr io.Writer
	Clients        Clients
}

// options are latchkeyd's flags.
type options struct {
	dev         bool
	listen      string
	dynamodb    string
	readyFile   string
	clockOffset time.Duration
	toLoopback  bool
}

// Latchkeyd runs the whole service in one process until ctx is done, then lets requests under way finish. An error says
// what to do about it; flag.ErrHelp means that help was asked for and given.
func Latchkeyd(ctx context.Context, p Process) error {
	o, err := parseOptions(p)
	if err != nil {
		return err
	}
	log.SetOutput(io.Discard) // net/http prints what a broken peer sent
	settings, err := ReadSettings(p.Getenv)
	if err != nil {
		return err
	}
	d := &daemon{options: o, process: p, settings: settings, log: logger(p.Stderr, settings.LogLevel)}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address, such as -listen 127.0.0.1:8081", err)
	}
	defer listener.Close()
	if err := d.open(ctx, "http://"+listener.Addr().String()); err != nil {
		return err
	}
	return d.serve(ctx, listener)
}

func parseOptions(p Process) (o options, err error) {
	flags := flag.NewFlagSet("latchkeyd", flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	flags.BoolVar(&o.dev, "dev", false, "development mode: loopback only, the organization org_dev, a management key and a demo API; implied without -dynamodb")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` to serve at")
	flags.StringVar(&o.dynamodb, "dynamodb", "", "`URL` of DynamoDB, such as http://127.0.0.1:8000; without it everything is in memory and gone at the end")
	flags.StringVar(&o.readyFile, "ready-file", "", "`path` of a JSON file to write once the service serves")
	flags.DurationVar(&o.clockOffset, "clock-offset", 0, "development mode: how far the clock is ahead, such as 25h")
	flags.BoolVar(&o.toLoopback, "webhooks-to-loopback", false, "development mode: events and notices may go to receivers on this machine, also by http")
	if err := flags.Parse(p.Args); err != nil {
		return o, err
	}
	o.dev = o.dev || o.dynamodb == ""
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q: see latchkeyd -help", flags.Arg(0))
	case o.clockOffset != 0 && !o.dev:
		return o, errors.New("-clock-offset is for development: add -dev, or leave it out")
	case o.toLoopback && !o.dev:
		return o, errors.New("-webhooks-to-loopback is for development: add -dev, or leave it out")
	case o.dev && !loopback(o.listen):
		return o, fmt.Errorf("-listen %s: development mode serves on this machine only, with host and port, such as 127.0.0.1:8081", o.listen)
	}
	return o, nil
}

// loopback says whether a listening address is this machine's alone.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	address, parseErr := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || parseErr == nil && address.IsLoopback())
}

// daemon is one running latchkeyd.
type daemon struct {
	options  options
	process  Process
	settings Settings
	log      *slog.Logger
	app      *App
	issuer   *issuer.Issuer // of development mode

	publisher *publish.Publisher
	feed      publish.Feed

	ready struct {
		sync.Mutex
		at  time.Time
		err error
	}
}

// open opens the store and wires the rooms to it, for a service at url.
func (d *daemon) open(ctx context.Context, url string) (err error) {
	now := func() time.Time { return time.Now().Add(d.options.clockOffset) }
	if d.options.dev {
		if d.issuer, err = developmentIssuer(url, &d.settings, now); err != nil {
			return err
		}
		if d.settings.AllowedScopes == nil {
			d.settings.AllowedScopes = []string{"*"}
		}
	}
	store, sealer, err := d.store(ctx)
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	if d.app, err = New(store, d.settings, now, d.log); err != nil {
		return err
	}
	d.app.Deliverer.Sender.Loopback = d.options.toLoopback
	d.app.Keys.LoopbackWebhooks = d.options.toLoopback
	if d.options.dev {
		d.app.Keys.Seal = sealer
	} else if err := d.app.sealByKMS(d.process.Getenv); err != nil {
		return err
	}
	if err := d.app.reachSecrets(d.process.Clients, d.access(d.process.Getenv("LATCHKEY_SECRETSMANAGER_ENDPOINT"))); err != nil {
		return err
	}
	if d.publisher, err = d.app.publisher(d.process.Clients, d.access(d.process.Getenv("LATCHKEY_EVENTBRIDGE_ENDPOINT"))); err != nil {
		return err
	}
	if d.feed, err = d.follow(); err != nil {
		return err
	}
	return d.app.Ready(ctx)
}

// store is the store, and in development what seals with it.
func (d *daemon) store(ctx context.Context) (Store, *seal.Sealer, error) {
	if d.options.dev {
		return developmentStore(ctx, d.options.dynamodb, d.settings)
	}
	store, err := openTables(access(d.process.Getenv, d.options.dynamodb), d.settings)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: set AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use -dev for DynamoDB Local", err)
	}
	return store, nil, nil
}

// serve tells whoever waits that it is ready, and serves until ctx is done.
func (d *daemon) serve(ctx context.Context, listener net.Listener) error {
	hello := ready{URL: "http://" + listener.Addr().String()}
	if d.options.dev {
		if err := d.development(ctx, &hello); err != nil {
			return err
		}
	}
	if err := d.announce(hello); err != nil {
		return err
	}
	return d.run(ctx, listener)
}

func (d *daemon) run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: d.handler(),

		DisableGeneralOptionsHandler: true, // OPTIONS * is answered like everything else
		ReadHeaderTimeout:            5 * time.Second,
		ReadTimeout:                  15 * time.Second,
		WriteTimeout:                 30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               32 << 10,
		ErrorLog:                     slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	working, stop := context.WithCancel(ctx)
	worked := make(chan struct{})
	go func() { defer close(worked); d.work(working) }()
	defer func() { stop(); <-worked }()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	d.log.Info("stopping: letting requests under way finish")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownPatience)
	defer cancel()
	return server.Shutdown(ctx)
}

// own marks routes that no Lambda has.
const own = "latchkeyd"

// handler is every route of the service, health and what development mode adds included.
func (d *daemon) handler() http.Handler {
	healthz := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }
	routes := append(d.app.API.Routes(),
		httpapi.Row(own, http.MethodGet, "/healthz", http.HandlerFunc(healthz)),
		httpapi.Row(own, http.MethodGet, "/readyz", http.HandlerFunc(d.readyz)))
	if d.options.dev {
		routes = append(routes, d.developmentRoutes()...)
	}
	return d.app.API.Handler(routes...)
}

// readyz answers 200 when the store answers, or did a moment ago: anybody may ask.
func (d *daemon) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := d.answered(ctx); err != nil {
		d.log.Warn("not ready", "error", err)
		w.Header().Set("Retry-After", "1")
		verify.WriteError(w, &apikey.Error{Code: apikey.Unavailable, Message: "The store does not answer.", RequestID: w.Header().Get("X-Request-Id")})
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// answered is what the store said, at most a second ago.
func (d *daemon) answered(ctx context.Context) error {
	d.ready.Lock()
	defer d.ready.Unlock()
	if time.Since(d.ready.at) > time.Second {
		d.ready.err, d.ready.at = d.app.Ready(ctx), time.Now()
	}
	return d.ready.err
}

// ready is what the ready file holds. What does not exist is absent.
type ready struct {
	URL            string `json:"url"`
	OrganizationID string `json:"organization_id,omitempty"`
	ManagementKey  string `json:"management_key,omitempty"`
	JWT            string `json:"jwt,omitempty"`        // of an admin of the organization
	IssuerURL      string `json:"issuer_url,omitempty"` // where development makes other tokens
	DemoURL        string `json:"demo_url,omitempty"`
}

// announce writes the ready file, whole at once and for its owner alone, and greets a person at a terminal.
func (d *daemon) announce(r ready) error {
	d.log.Info("serving", "url", r.URL, "development", d.options.dev, "dynamodb", d.options.dynamodb != "")
	if terminal(d.process.Stdout) {
		greet(d.process.Stdout, r)
	}
	if d.options.readyFile == "" {
		return nil
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("printing the ready file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(d.options.readyFile), ".ready-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	_, writeErr := f.Write(append(body, '\n'))
	if err := errors.Join(writeErr, f.Close()); err != nil {
		return fmt.Errorf("writing the ready file: %w", errors.Join(err, os.Remove(f.Name())))
	}
	if err := os.Rename(f.Name(), d.options.readyFile); err != nil {
		return fmt.Errorf("writing the ready file: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// greet shows how to begin.
func greet(w io.Writer, r ready) {
	fmt.Fprintf(w, "\nLatchkey serves at %s\n", r.URL)
	if r.ManagementKey == "" {
		fmt.Fprintln(w)
		return
	}
	fmt.Fprintf(w, `Development mode. Keys in memory are forgotten at the end; -dynamodb keeps them. In a second terminal:

export URL=%s ADMIN=%s

KEY=$(curl -s $URL/v1/api-keys -H "Authorization: Bearer $ADMIN" -H "Content-Type: application/json" -d '{"project_id":"shop","name":"first","scopes":["%s"]}' | sed 's/.*"key":"\([^"]*\)".*/\1/')
curl -i $URL%s -H "Authorization: Bearer $KEY"
curl -s "$URL/v1/api-keys?project_id=shop" -H "Authorization: Bearer $ADMIN"

Ctrl-C stops it.

`, r.URL, r.ManagementKey, demoScope, demoPath)
}

// terminal says whether a person reads w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// logger writes text for people and JSON for machines.
func logger(w io.Writer, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if terminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
