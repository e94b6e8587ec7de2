package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

const page = "https://console.example.com"

// from sends a request of a page, a preflight when asked is the method that is to follow.
func (d *door) from(origin, method, path, key, asked string) *httptest.ResponseRecorder {
	r := request(method, path, key, "")
	r.Header.Set("Origin", origin)
	if asked != "" {
		r.Header.Set("Access-Control-Request-Method", asked)
		r.Header.Set("Access-Control-Request-Headers", "authorization")
	}
	return d.send(r)
}

func TestAPageOfAnAllowedOriginMayAskAndRead(t *testing.T) {
	d := newDoor(t)
	d.AllowedOrigins = []string{"https://other.example.com", page}
	w := d.from(page, "OPTIONS", "/v1/api-keys", "", "POST")
	if w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != page ||
		w.Header().Get("Access-Control-Allow-Headers") == "" || w.Header().Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("the preflight: %d %v", w.Code, w.Header())
	}
	for path, want := range map[string]int{"/v1/api-keys": 200, "/v1/api-keys/me": 200, "/v1/api-keys/key_zzzzzzzz": 404, "/nothing": 404} {
		w := d.from(page, "GET", path, d.manager.Plaintext.Reveal(), "")
		if w.Code != want || w.Header().Get("Access-Control-Allow-Origin") != page || w.Header().Get("Vary") != "Origin" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
}

func TestAPageOfAnotherOriginMayNot(t *testing.T) {
	for name, c := range map[string]struct {
		allowed              []string
		origin, method, path string
		want                 int
	}{
		"nobody is allowed":       {nil, page, "OPTIONS", "/v1/api-keys", 405},
		"another scheme":          {[]string{page}, "http://console.example.com", "OPTIONS", "/v1/api-keys", 405},
		"another port":            {[]string{page}, page + ":8443", "OPTIONS", "/v1/api-keys", 405},
		"a longer name":           {[]string{page}, page + ".evil.example", "OPTIONS", "/v1/api-keys", 405},
		"null":                    {[]string{page}, "null", "OPTIONS", "/v1/api-keys", 405},
		"the door of proxies":     {[]string{page}, page, "OPTIONS", "/v1/authorize", 401},
		"reading without a right": {nil, page, "GET", "/v1/api-keys", 401},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			d.AllowedOrigins = c.allowed
			w := d.from(c.origin, c.method, c.path, "", "POST")
			if w.Code != c.want || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("got %d %v", w.Code, w.Header())
			}
		})
	}
}
