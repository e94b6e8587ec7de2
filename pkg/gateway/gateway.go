// Package gateway is the AWS door. It turns the events of API Gateway and AppSync into requests and questions, and what
// comes of them into the answers that those services expect. Nothing else in the house knows AWS Lambda.
//
// [Serve] is for the functions behind an API: one proxy event becomes one request of an http.Handler. [Authorizer] stands
// before an API: it asks verify about the key of an event, and tells the API what it may rely on. [Admitted] is how a
// function of the management API learns what the authorizer decided. [Scheduled] is for the functions that a clock starts,
// [Streamed] for those that are brought what a table's stream tells,
// [Asked] for those that another service of AWS calls with a question of its own.
//
// It promises that the decision comes from the authorizer's context of the event alone, which no header, query or body
// can touch; that a request without a decision is refused; and that what cannot be read, or not in time, lets nobody in.
// It refuses to route by a path that a stage or a base path got into, and to take a person's token at a protected API.
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

// margin is kept back of the time that Lambda gives an invocation, to answer in.
const margin = 200 * time.Millisecond

const forwardedFor = "X-Forwarded-For"

// Handler answers one event. Its error makes the gateway answer 500 or 502, or 401 when its text is exactly "Unauthorized".
type Handler func(ctx context.Context, event json.RawMessage) (any, error)

// Start gives Lambda's events to h, one after another, until Lambda ends the process. A panic of h is an error, and the
// next event is served.
func Start(h Handler) { lambda.Start(h.inTime) }

// inTime is h with an end early enough to still answer, and without panics, which would end the process. What panicked
// is told by its type, as its text might hold anything.
func (h Handler) inTime(ctx context.Context, event json.RawMessage) (answer any, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
	}
	defer func() {
		if cause := recover(); cause != nil {
			answer, err = nil, fmt.Errorf("panic: %T\n%s", cause, debug.Stack())
		}
	}()
	return h(ctx, event)
}

// Scheduled gives every event to run, whatever the event says: it may come twice, late, or from somebody else. An error of
// run is Lambda's, which tries again once and then puts it into the queue of failures.
func Scheduled(run func(context.Context) error) Handler {
	return func(ctx context.Context, _ json.RawMessage) (any, error) { return nil, run(ctx) }
}

// Asked gives what each event says, as JSON, to do. It is for functions that another service of AWS calls with a question of
// its own form. One that cannot be read is an error, whose text holds nothing of it.
func Asked[T any](do func(context.Context, T) error) Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var asked T
		if json.Unmarshal(raw, &asked) != nil {
			return nil, errors.New("the event cannot be read")
		}
		return nil, do(ctx, asked)
	}
}

// headers is what an event says of them: every value where it lists them, under the one spelling of the name. What the
// gateway itself added to X-Forwarded-For, its own peer, is taken back: proxies before it are then counted as everywhere.
func headers(listed map[string][]string, single map[string]string, peer string) http.Header {
	h := http.Header{}
	if listed == nil {
		listed = map[string][]string{}
		for name, v := range single {
			listed[name] = []string{v}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		for _, v := range listed[name] {
			h.Add(name, v)
		}
	}
	hops := strings.Split(strings.Join(h[forwardedFor], ","), ",")
	if last := len(hops) - 1; peer != "" && strings.TrimSpace(hops[last]) == peer {
		h.Del(forwardedFor)
		if last > 0 {
			h.Set(forwardedFor, strings.Join(hops[:last], ","))
		}
	}
	return h
}
