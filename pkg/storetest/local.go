package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

const (
	folderVariable  = "LATCHKEY_DYNAMODB_LOCAL"   // where the jars are
	requireVariable = "LATCHKEY_REQUIRE_DYNAMODB" // non-empty: fail rather than skip
	startPatience   = 30 * time.Second
)

// local is this process's DynamoDB Local, started by the first test that needs it.
var local struct {
	sync.Mutex
	server *server
	err    error
}

// DynamoDBLocal is the endpoint of a DynamoDB Local in memory, one for all tests of the process. The package's TestMain
// must call Main, which stops it. Where it cannot be had, the test is skipped, or fails when LATCHKEY_REQUIRE_DYNAMODB
// is set.
func DynamoDBLocal(t testing.TB) (endpoint string) {
	t.Helper()
	folder, err := installed()
	if err != nil && os.Getenv(requireVariable) == "" {
		t.Skipf("NOT TESTED against DynamoDB: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	local.Lock()
	defer local.Unlock()
	if local.server == nil && local.err == nil {
		local.server, local.err = start(folder)
	}
	if local.err != nil {
		t.Fatalf("starting DynamoDB Local: %v", local.err)
	}
	return local.server.endpoint
}

// Main runs a package's tests and stops what DynamoDBLocal started: os.Exit(storetest.Main(m)).
func Main(m *testing.M) int {
	code := m.Run()
	local.Lock()
	defer local.Unlock()
	if local.server != nil {
		local.server.stop()
	}
	return code
}

// installed finds Java and the jars.
func installed() (folder string, err error) {
	if folder = os.Getenv(folderVariable); folder == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("looking for DynamoDB Local: %w", err)
		}
		folder = filepath.Join(cache, "latchkey", "dynamodb-local-3.1.0")
	}
	if _, err := exec.LookPath("java"); err != nil {
		return "", errors.New("DynamoDB Local needs Java 17 or later: install it, then run `make dynamodb-local`")
	}
	if jars, _ := filepath.Glob(filepath.Join(folder, "DynamoDBLocal-*.jar")); len(jars) == 0 {
		return "", fmt.Errorf("DynamoDB Local is not in %s: run `make dynamodb-local`, or set %s", folder, folderVariable)
	}
	return folder, nil
}

// server is a running DynamoDB Local.
type server struct {
	endpoint string
	command  *exec.Cmd
	output   bytes.Buffer
	ended    chan struct{}
}

func start(folder string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{endpoint: fmt.Sprintf("http://127.0.0.1:%d", port), ended: make(chan struct{})}
	s.command = exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Djava.library.path="+folder,
		"-cp", filepath.Join(folder, "*"), "software.amazon.dynamodb.services.local.main.ServerRunner",
		"-inMemory", "-sharedDb", "-disableTelemetry", "-port", fmt.Sprint(port))
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	dieWithParent(s.command)
	if err := s.run(); err != nil {
		return nil, err
	}
	if err := s.wait(); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, &s.output)
	}
	return s, nil
}

// run starts the process and reaps it, on one thread that lives as long as the process: Linux ends it with the thread
// that started it, not with the whole parent.
func (s *server) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := s.command.Start()
		started <- err
		if err == nil {
			_ = s.command.Wait()
			close(s.ended)
		}
	}()
	return <-started
}

// wait returns once the server answers: anything at all.
func (s *server) wait() error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline, tick := time.After(startPatience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := client.Get(s.endpoint); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-s.ended:
			return errors.New("it ended at once")
		case <-deadline:
			return fmt.Errorf("it does not answer within %v", startPatience)
		case <-tick.C:
		}
	}
}

// stop ends the process by its id and waits for its end.
func (s *server) stop() {
	_ = s.command.Process.Kill() // it may have ended by itself
	<-s.ended
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
