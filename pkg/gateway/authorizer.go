package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/caller"
	"github.com/latchkey/latchkey/pkg/oidc"
	"github.com/latchkey/latchkey/pkg/verify"
)

// What an HTTP API may be set to want of an authorizer with payload format 2.0. The event does not tell which.
const (
	simple = "simple" // EnableSimpleResponses: true
	policy = "policy"
)

// errUnauthorized makes API Gateway answer 401. Its text must be this.
var errUnauthorized = errors.New("Unauthorized")

// Authorizer decides about the key of an authorizer event, and at the management door about a person's token. Verifier and
// Log are required.
//
// What each API needs may stand in its stage variables, which no caller can set: latchkey_scopes (the scopes that a key
// must have, with commas between them), latchkey_answer ("simple" or "policy", for HTTP APIs), and latchkey_door
// ("management" at the management API alone). One that cannot be read lets nobody in.
type Authorizer struct {
	Verifier    *verify.Verifier
	Log         *slog.Logger
	Scopes      []string // where there is no stage variable latchkey_scopes
	Policy      bool     // where there is no stage variable latchkey_answer: "policy" and not "simple"
	TrustedHops int      // proxies of one's own before the gateway, as verify.ClientAddress counts them; 0: its peer

	// People says whose a token is, as oidc.Verifier's Verify does. nil: keys alone sign in.
	People func(ctx context.Context, token string) (caller.Caller, error)
}

// Handle answers one event of a REST API (TOKEN or REQUEST), an HTTP API (1.0 or 2.0), a WebSocket API's $connect, or
// AppSync, told apart by their shape.
//
// No key, or one that is unknown, malformed or ended, is the error Unauthorized, for which the gateway answers 401. A key
// that may not pass for its scopes, its client's address, its kind or its limits is denied (403), with the code in the
// context. At the management door it is let through with that code, since there a function answers for each its own
// status. AppSync knows one refusal for all. A store that does not answer in time is another error (500), never an allow.
//
// A bearer credential with the form of a token is asked of People at the management door of a REST or an HTTP API, and
// nowhere else: no issuer's user walks into a protected API. One that is refused is the error Unauthorized; an issuer
// whose keys cannot be had is another error.
func (a *Authorizer) Handle(ctx context.Context, raw json.RawMessage) (any, error) {
	q, err := readQuestion(raw)
	if err != nil {
		return nil, err
	}
	ask, err := a.ask(q)
	if err != nil {
		return nil, err
	}
	answer, err := a.answering(q)
	if err != nil {
		return nil, err
	}
	if a.isPerson(&ask) {
		return a.person(ctx, q, &ask, answer)
	}
	d := a.Verifier.Verify(ctx, ask)
	a.logKey(ctx, q, &ask, &d)
	switch {
	case d.Code.Status() >= http.StatusInternalServerError:
		return nil, errors.New("the key could not be checked: " + string(d.Code))
	case d.Code.Status() == http.StatusUnauthorized && q.shape != appSync:
		return nil, errUnauthorized
	}
	return answer(d.Allowed() || ask.Door == verify.Management, d.KeyID.String(), tell(&d, ask.Door)), nil
}

// isPerson says whether the credential is a person's token, at the one door where such a one counts.
func (a *Authorizer) isPerson(ask *verify.Request) bool {
	return a.People != nil && ask.Door == verify.Management && oidc.Looks(ask.Key)
}

// person answers about a token.
func (a *Authorizer) person(ctx context.Context, q *question, ask *verify.Request, answer answering) (any, error) {
	c, err := a.People(ctx, ask.Key)
	a.logPerson(ctx, q, ask, &c, err)
	switch code := apikey.CodeOf(err); {
	case err == nil:
		return answer(true, c.ID, tellPerson(&c)), nil
	case code.Status() == http.StatusUnauthorized:
		return nil, errUnauthorized
	default:
		return nil, errors.New("the token could not be checked: " + string(code))
	}
}

// ask is the question that an event puts.
func (a *Authorizer) ask(q *question) (verify.Request, error) {
	r := &http.Request{RemoteAddr: q.address(), Header: q.header()}
	ask := verify.Request{Key: verify.Bearer(r.Header), Address: verify.ClientAddress(r, a.TrustedHops)}
	if q.shape == restToken || q.shape == appSync {
		ask.Key = token(q.AuthorizationToken)
	}
	var err error
	scopes, door := q.StageVariables["latchkey_scopes"], q.StageVariables["latchkey_door"]
	switch {
	case door == management && (q.shape == restRequest || q.shape == http1 || q.shape == http2):
		ask.Door = verify.Management
	case door != "":
		err = fmt.Errorf("the stage variable latchkey_door is %q: it may be %q, for REQUEST events of a REST or an HTTP API", door, management)
	case scopes != "":
		ask.Scopes, err = apikey.ParseScopes(scopes)
	default:
		ask.Scopes = a.Scopes
	}
	return ask, err
}

// token is the key of an event that has a token in place of headers: with the word Bearer, or bare, as AppSync wants it.
func token(text string) string {
	if !strings.Contains(text, " ") {
		return text
	}
	return verify.Bearer(http.Header{"Authorization": {text}})
}

func (a *Authorizer) logKey(ctx context.Context, q *question, ask *verify.Request, d *verify.Decision) {
	a.log(ctx, q, ask, d.Code, d.Cause, slog.String("key_prefix", d.KeyPrefix))
}

// logPerson tells why a token was refused too: the client is told by the gateway, which does not know. No error of People
// has anything of the token in it.
func (a *Authorizer) logPerson(ctx context.Context, q *question, ask *verify.Request, c *caller.Caller, err error) {
	code := apikey.Valid
	if err != nil {
		code = apikey.CodeOf(err)
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	a.log(ctx, q, ask, code, err, slog.String("organization_id", c.OrganizationID), slog.String("user_id", c.ID))
}

func (a *Authorizer) log(ctx context.Context, q *question, ask *verify.Request, code apikey.Code, cause error, who ...slog.Attr) {
	level, text := slog.LevelInfo, ""
	if cause != nil {
		text = cause.Error()
	}
	if code.Status() >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	a.Log.LogAttrs(ctx, level, "decision", append([]slog.Attr{
		slog.String("shape", string(q.shape)),
		slog.String("api", q.RequestContext.APIID),
		slog.String("gateway_request_id", q.RequestContext.RequestID),
		slog.String("code", string(code)),
		slog.String("client", ask.Address.String()),
		slog.String("error", text)}, who...)...)
}

// answering makes the answer in the form that a shape wants. The principal is the key or the person.
type answering func(allow bool, principal string, told map[string]any) any

func (a *Authorizer) answering(q *question) (answering, error) {
	want := q.StageVariables["latchkey_answer"]
	switch {
	case q.shape == appSync:
		return resolved, nil
	case q.shape == http2 && (want == simple || want == "" && !a.Policy):
		return authorized, nil
	case want != "" && want != simple && want != policy:
		return nil, fmt.Errorf("the stage variable latchkey_answer is %q: it may be %q or %q", want, simple, policy)
	}
	stage, err := wholeStage(cmp.Or(q.MethodARN, q.RouteARN))
	return stage.policy, err
}

func authorized(allow bool, _ string, told map[string]any) any {
	return events.APIGatewayV2CustomAuthorizerSimpleResponse{IsAuthorized: allow, Context: told}
}

// resolved forbids AppSync to remember the answer, so that limits count and a revocation bites at once.
func resolved(allow bool, _ string, told map[string]any) any {
	return events.AppSyncLambdaAuthorizerResponse{IsAuthorized: allow, ResolverContext: told, TTLOverride: new(int)}
}

// stageARN names all methods and paths of one stage: what a gateway remembers of one route then holds for the others.
type stageARN string

func (s stageARN) policy(allow bool, principal string, told map[string]any) any {
	effect := "Deny"
	if allow {
		effect = "Allow"
	}
	return events.APIGatewayCustomAuthorizerResponse{
		PrincipalID: principal,
		Context:     told,
		PolicyDocument: events.APIGatewayCustomAuthorizerPolicy{Version: "2012-10-17", Statement: []events.IAMPolicyStatement{
			{Action: []string{"execute-api:Invoke"}, Effect: effect, Resource: []string{string(s)}},
		}},
	}
}

// wholeStage widens arn:aws:execute-api:region:account:api/stage/METHOD/path.
func wholeStage(arn string) (stageARN, error) {
	api, rest, _ := strings.Cut(arn, "/")
	stage, _, _ := strings.Cut(rest, "/")
	if parts := strings.Split(api, ":"); len(parts) != 6 || parts[0] != "arn" || parts[2] != "execute-api" || parts[5] == "" || stage == "" {
		return "", errors.New("the event's ARN is not one of execute-api")
	}
	return stageARN(api + "/" + stage + "/*"), nil
}
