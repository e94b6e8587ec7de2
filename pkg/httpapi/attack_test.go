package httpapi_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// net/url drops a pair with a semicolon, which many clients send as it is.
func TestTheNextPageKeepsAFilterWithASemicolon(t *testing.T) {
	d := newDoor(t)
	for _, name := range []string{"a;b 1", "other", "a;b 2"} {
		d.mustCreate(t, "acme", lifecycle.New{Name: name})
	}
	at, err := url.Parse("/v1/api-keys?limit=1&name=a;b")
	if err != nil {
		t.Fatal(err)
	}
	for found := 0; at != nil; found++ {
		w := d.do("GET", at.String(), "")
		if body := has(t, w, 200); !strings.Contains(body, `"a;b `) && body != "[]\n" {
			t.Errorf("page %d: %s", found, body)
		}
		at = follow(t, at, w.Header().Get("Link"))
	}
}
