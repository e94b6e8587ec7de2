package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/latchkey/latchkey/pkg/app"
	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/bus"
)

// trail is the commands about audit trails.
type trail struct {
	Export  export `cmd:"" help:"Write every entry and every link of an organization's audit trail, as JSON Lines."`
	Verify  proof  `cmd:"" help:"Prove offline what an export says, or name the first link that is broken."`
	Publish repair `cmd:"" help:"Link and announce now the entries of a trail that have no link."`
}

type export struct {
	where
	Organization string `help:"The organization's id." default:"main"`
	Output       string `help:"The file to write; - is standard output." default:"-" placeholder:"FILE"`
	Since        string `help:"Begin with the first link from then on: 2026-11-22, or 2026-11-22T10:00:00Z." placeholder:"TIME"`
}

// Run writes the export, the file whole or not at all.
func (e *export) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	since, err := moment(e.Since)
	if err != nil {
		return err
	}
	a, _, err := e.open(ctx)
	if err != nil {
		return err
	}
	links, entries := 0, 0
	progress := func(l, n int) {
		if (l+n)/10_000 > (links+entries)/10_000 {
			fmt.Fprintf(os.Stderr, "%d links and %d entries so far\n", l, n)
		}
		links, entries = l, n
	}
	err = written(e.Output, func(w io.Writer) error { return a.ExportAudit(ctx, e.Organization, since, w, progress) })
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d links and %d entries of %s\n", links, entries, e.Organization)
	return nil
}

// moment reads a time, or a date, which is its beginning in UTC.
func moment(text string) (at time.Time, err error) {
	if text == "" {
		return at, nil
	}
	if at, err = time.Parse(time.RFC3339, text); err != nil {
		if at, err = time.Parse(time.DateOnly, text); err != nil {
			return at, fmt.Errorf("--since %s: write 2026-11-22, or 2026-11-22T10:00:00Z", text)
		}
	}
	if audit.FirstID(at) == "" {
		return at, fmt.Errorf("--since %s: nothing is as old as that", text)
	}
	return at, nil
}

// written has a file written by write, for its owner alone. Where that fails, what was there before stays.
func written(path string, write func(io.Writer) error) error {
	if path == "-" {
		return write(os.Stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".latchkey-*") // mode 0600
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

type proof struct {
	Files []string `arg:"" name:"file" help:"Exports, or pages of /v1/audit and of /v1/audit/chain, of one organization or of several; - is standard input."`
	Head  []string `help:"A head that you kept elsewhere, as SEQUENCE:HASH, or ORGANIZATION:SEQUENCE:HASH; may be given again." placeholder:"HEAD" sep:"none"`
}

// errUnproven ends the command with 1, below a report that says all.
var errUnproven = errors.New("not proven: see above")

// Run prints what is proven. It asks nobody.
func (p *proof) Run() error {
	var x audit.Export
	for _, file := range p.Files {
		if err := read(&x, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	var heads []audit.Head
	for _, text := range p.Head {
		h, err := audit.ParseHead(text)
		if err != nil {
			return fmt.Errorf("--head: %w", err)
		}
		heads = append(heads, h)
	}
	verdicts, err := x.Check(heads...)
	if err == nil && len(verdicts) == 0 {
		err = errors.New("there is neither an entry nor a link in these files")
	}
	for _, v := range verdicts {
		fmt.Print(v.String())
		if !v.Proven() {
			err = errUnproven
		}
	}
	return err
}

func read(x *audit.Export, path string) error {
	if path == "-" {
		return x.Read(os.Stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return x.Read(f)
}

type repair struct {
	where
	Organization string `help:"The organization's id." default:"main"`
	Since        string `help:"Send again also what has a link, from then on: 2026-11-22, or 2026-11-22T10:00:00Z. Whoever had it knows it by its id." placeholder:"TIME"`
	DryRun       bool   `help:"Only name the entries, and publish none."`
}

// Run names the entries that have no link, or were to be sent again, and publishes them: whoever runs the service says by it that they are genuine.
func (p *repair) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	since, err := moment(p.Since)
	if err != nil {
		return err
	}
	a, getenv, err := p.open(ctx)
	if err != nil {
		return err
	}
	entries, err := a.Untold(ctx, p.Organization, since, time.Now())
	if err != nil {
		return err
	}
	for _, e := range entries {
		fmt.Println(e.ID, e.At.Format(time.RFC3339), e.Action)
	}
	const younger = "What is younger than five minutes is left out."
	if p.DryRun {
		fmt.Fprintf(os.Stderr, "%d entries of %s would be published. %s\n", len(entries), p.Organization, younger)
		return nil
	}
	done := 0
	err = a.PublishEntries(ctx, getenv, app.Clients{Bus: bus.Open}, entries, func(n int) { done = n })
	fmt.Fprintf(os.Stderr, "%d of %d entries of %s were published. %s\n", done, len(entries), p.Organization, younger)
	return err
}
