package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// shape is the kind of an authorizer event.
type shape string

const (
	restToken   shape = "rest-token"
	restRequest shape = "rest-request"
	http1       shape = "http-1.0"
	http2       shape = "http-2.0"
	webSocket   shape = "websocket"
	appSync     shape = "appsync"
)

// question is an authorizer event: what the six shapes have that a decision needs.
type question struct {
	Version            string
	Type               string
	MethodARN          string
	RouteARN           string
	AuthorizationToken string
	Headers            map[string]string
	MultiValueHeaders  map[string][]string
	RequestHeaders     map[string]string // AppSync's
	StageVariables     map[string]string
	RequestContext     struct {
		APIID        string
		RequestID    string
		ConnectionID string
		Identity     struct{ SourceIP string }
		HTTP         struct{ SourceIP string }
	}

	shape shape
}

func readQuestion(raw json.RawMessage) (*question, error) {
	q := &question{}
	if err := json.Unmarshal(raw, q); err != nil {
		return nil, fmt.Errorf("reading the event: %w", err)
	}
	switch request := q.Type == "REQUEST"; {
	case q.Type == "TOKEN":
		q.shape = restToken
	case request && q.Version == "2.0":
		q.shape = http2
	case request && q.Version == "1.0":
		q.shape = http1
	case request && (q.RequestContext.ConnectionID != "" || strings.HasSuffix(q.MethodARN, "/$connect")):
		q.shape = webSocket
	case request && q.Version == "":
		q.shape = restRequest
	case q.Type == "" && q.Version == "" && q.AuthorizationToken != "":
		q.shape = appSync
	default:
		return nil, errors.New("this is no authorizer event that Latchkey knows")
	}
	return q, nil
}

func (q *question) header() http.Header {
	if q.shape == appSync {
		return headers(nil, q.RequestHeaders, "")
	}
	return headers(q.MultiValueHeaders, q.Headers, q.address())
}

// address is the peer that the gateway saw; "" where the event does not tell, as for TOKEN and AppSync.
func (q *question) address() string {
	if q.shape == http2 {
		return q.RequestContext.HTTP.SourceIP
	}
	return q.RequestContext.Identity.SourceIP
}
