package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// timeout is what an invocation is given, as in template.yaml.
const timeout = 15 * time.Second

// bootstrap is a program that speaks the Runtime API.
type bootstrap struct {
	name        string
	path        string   // of the binary
	environment []string // besides the Runtime API's address
	answer      string   // that each of its answers contains
}

// process is a running bootstrap with the Runtime API that serves it.
type process struct {
	bootstrap *bootstrap
	command   *exec.Cmd
	output    bytes.Buffer
	server    http.Server
	began     time.Time
	events    chan []byte
	answers   chan answer
	handed    time.Time // when the last event was handed out
}

// answer is what a bootstrap posted, and when.
type answer struct {
	at   time.Time
	body []byte
	err  error
}

// start begins a process. Its output goes to a pipe, as on Lambda.
func (b *bootstrap) start(ctx context.Context) (*process, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &process{bootstrap: b, events: make(chan []byte, 1), answers: make(chan answer, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", p.next)
	mux.HandleFunc("POST /2018-06-01/runtime/", p.posted)
	p.server.Handler = mux
	go func() { _ = p.server.Serve(listener) }() // until stop
	p.command = exec.CommandContext(ctx, b.path)
	p.command.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + listener.Addr().String()}, b.environment...)
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	p.began = time.Now()
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(err, p.server.Close())
	}
	return p, nil
}

// stop ends the process by its id and waits for its end.
func (p *process) stop() {
	_ = p.command.Process.Kill() // it may have ended by itself
	_ = p.command.Wait()         // it was killed
	_ = p.server.Close()
}

// next hands out an event as soon as there is one.
func (p *process) next(w http.ResponseWriter, r *http.Request) {
	select {
	case event := <-p.events:
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:bench")
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(timeout).UnixMilli(), 10))
		w.Header().Set("Content-Type", "application/json")
		p.handed = time.Now()
		_, _ = w.Write(event) // if it fails, no answer comes
	case <-r.Context().Done():
	}
}

// posted takes an answer, or an error of an invocation or of the start.
func (p *process) posted(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	at := time.Now()
	if err == nil && !strings.HasSuffix(r.URL.Path, "/response") {
		err = errors.New(r.URL.Path)
	}
	w.WriteHeader(http.StatusAccepted)
	p.answers <- answer{at, body, err}
}

// invoke gives the event and waits for the right answer to it. It returns the time since the process began, and the
// time since it was handed the event.
func (p *process) invoke(ctx context.Context, event []byte) (whole, warm time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p.events <- event
	var a answer
	select {
	case a = <-p.answers:
	case <-ctx.Done():
		a.err = ctx.Err()
	}
	if a.err != nil || !bytes.Contains(a.body, []byte(p.bootstrap.answer)) {
		p.stop() // so that its output is whole
		return 0, 0, fmt.Errorf("%s answers %q, error %w\n%s", p.bootstrap.name, a.body, a.err, &p.output)
	}
	return a.at.Sub(p.began), a.at.Sub(p.handed), nil
}
