package main_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/keytest"
)

// Whoever holds a leaked key begins a request and holds its body back until the key is revoked. The key must be asked
// about once the request is there, not before.
func TestARequestThatIsHeldBackDoesNotOutliveItsKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, d *keytest.Daemon) {
		leaked := d.Create(map[string]any{"scopes": []string{"keys:write"}})
		conn, err := net.Dial("tcp", strings.TrimPrefix(d.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		body := `{"project_id": "shop", "name": "backdoor", "scopes": ["keys:write"]}`
		fmt.Fprintf(conn, "POST /v1/api-keys HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			leaked.Plaintext, len(body))
		answers := bufio.NewReader(conn)
		if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // the request is being read
			t.Fatalf("got %q, %v", line, err)
		}
		if a := d.Call("DELETE", "/v1/api-keys/"+leaked.ID, d.ManagementKey, nil); a.Status != http.StatusNoContent {
			t.Fatalf("delete: %d", a.Status)
		}
		fmt.Fprint(conn, body)
		_, _ = answers.ReadString('\n') // the blank line after 100 Continue
		answer, err := http.ReadResponse(answers, nil)
		if err != nil || answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %v, %v", answer, err)
		}
	})
}

func TestAPrefixOfAnotherEnvironmentNamesNoKey(t *testing.T) {
	d := keytest.Start(t)
	k := d.Create(nil)
	wrong := strings.Replace(k.Prefix, "_live_", "_test_", 1)
	for _, method := range []string{"GET", "DELETE"} {
		if a := d.Call(method, "/v1/api-keys/"+wrong, d.ManagementKey, nil); a.Status != http.StatusNotFound {
			t.Errorf("%s: %d", method, a.Status)
		}
	}
	if a := d.Call("GET", "/v1/api-keys/"+k.Prefix, d.ManagementKey, nil); a.Status != http.StatusOK {
		t.Errorf("its own prefix: %d", a.Status)
	}
}
