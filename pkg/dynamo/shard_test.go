package dynamo_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/storetest"
)

// playedStream plays DynamoDB Streams, whose shards split and end as DynamoDB Local's do not. Tables are DynamoDB Local's.
type playedStream struct {
	t   *testing.T
	url string

	mu         sync.Mutex
	shards     []*fakeShard
	off        bool
	generation int // of iterators: those of earlier ones have expired
	faults     []string
	calls      map[string]int
}

type fakeShard struct {
	id, parent string
	entries    []string // the ids of acme's entries
	first      int      // how many of them were trimmed
	closed     bool
	reads      int
}

func newStream(t *testing.T) *playedStream {
	t.Helper()
	local, err := url.Parse(storetest.DynamoDBLocal(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &playedStream{t: t, calls: map[string]int{}}
	tables := httputil.NewSingleHostReverseProxy(local)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if operation, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "DynamoDBStreams_20120810."); ok {
			s.serve(w, r, operation)
		} else {
			tables.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// put writes so many entries into a shard.
func (s *playedStream) put(shard *fakeShard, n int) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		ids = append(ids, audit.NewID(time.Unix(1_795_377_600, 0)))
	}
	shard.entries = append(shard.entries, ids...)
	return ids
}

func (s *playedStream) serve(w http.ResponseWriter, r *http.Request, operation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[operation]++
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if len(s.faults) > 0 && operation != "DescribeStream" {
		fault := s.faults[0]
		s.faults = s.faults[1:]
		s.refuse(w, fault)
		return
	}
	var in struct{ ShardId, ShardIterator, ShardIteratorType, SequenceNumber, ExclusiveStartShardId string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		s.t.Error(err)
	}
	switch operation {
	case "DescribeStream":
		s.describe(w, in.ExclusiveStartShardId)
	case "GetShardIterator":
		shard := s.shard(in.ShardId)
		at := 0
		switch {
		case shard == nil:
			s.refuse(w, "ResourceNotFoundException")
			return
		case in.ShardIteratorType == "TRIM_HORIZON":
			at = shard.first
		default:
			n, err := strconv.Atoi(in.SequenceNumber[len(shard.id):]) // those of a shard begin with its name, else with whatever is wrong
			if err != nil || !strings.HasPrefix(in.SequenceNumber, shard.id) {
				s.t.Errorf("%s is asked for what comes after %s", shard.id, in.SequenceNumber)
			}
			if at = n + 1; at < shard.first {
				s.refuse(w, "TrimmedDataAccessException")
				return
			}
		}
		s.reply(w, map[string]any{"ShardIterator": fmt.Sprint(shard.id, " ", at, " ", s.generation)})
	case "GetRecords":
		s.records(w, in.ShardIterator)
	}
}

func (s *playedStream) shard(id string) *fakeShard {
	at := slices.IndexFunc(s.shards, func(f *fakeShard) bool { return f.id == id })
	if at < 0 {
		return nil
	}
	return s.shards[at]
}

// describe lists two shards on a page.
func (s *playedStream) describe(w http.ResponseWriter, after string) {
	first := slices.IndexFunc(s.shards, func(f *fakeShard) bool { return f.id == after }) + 1
	page := s.shards[first:min(first+2, len(s.shards))]
	description := map[string]any{"StreamStatus": "ENABLED"}
	if s.off {
		description["StreamStatus"] = "DISABLED"
	}
	var shards []map[string]any
	for _, f := range page {
		numbers := map[string]string{"StartingSequenceNumber": "0"}
		if f.closed {
			numbers["EndingSequenceNumber"] = "9"
		}
		one := map[string]any{"ShardId": f.id, "SequenceNumberRange": numbers}
		if f.parent != "" {
			one["ParentShardId"] = f.parent
		}
		shards = append(shards, one)
	}
	if description["Shards"] = shards; first+len(page) < len(s.shards) {
		description["LastEvaluatedShardId"] = page[len(page)-1].id
	}
	s.reply(w, map[string]any{"StreamDescription": description})
}

// records gives three at a time, and nothing each second time, as DynamoDB Streams may.
func (s *playedStream) records(w http.ResponseWriter, iterator string) {
	var id string
	var at, generation int
	if _, err := fmt.Sscan(iterator, &id, &at, &generation); err != nil {
		s.t.Error(err)
	}
	shard := s.shard(id)
	if generation != s.generation || shard == nil {
		s.refuse(w, "ExpiredIteratorException")
		return
	}
	to := min(at+3, len(shard.entries))
	if shard.reads++; shard.reads%2 == 0 {
		to = at
	}
	var records []map[string]any
	for n := at; n < to; n++ {
		keys := map[string]any{"pk": map[string]string{"S": "acme"}, "sk": map[string]string{"S": shard.entries[n]}}
		image := map[string]any{"v": map[string]string{"N": "1"}, "at": map[string]string{"N": "1795377600000"}, "changes": map[string]string{"S": "null"},
			"later": map[string]bool{"BOOL": true}, "pk": keys["pk"], "sk": keys["sk"]}
		for _, name := range []string{"action", "actor_kind", "actor_id", "address", "request_id"} {
			image[name] = map[string]string{"S": "x"}
		}
		records = append(records, map[string]any{"eventName": "INSERT", "dynamodb": map[string]any{"Keys": keys, "NewImage": image,
			"SequenceNumber": fmt.Sprint(id, n), "ApproximateCreationDateTime": 1795377600}})
	}
	answer := map[string]any{"Records": records}
	if !shard.closed || to < len(shard.entries) {
		answer["NextShardIterator"] = fmt.Sprint(id, " ", to, " ", s.generation)
	}
	s.reply(w, answer)
}

func (s *playedStream) refuse(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusBadRequest)
	s.reply(w, map[string]any{"__type": "com.amazonaws.dynamodb.v20120810#" + code})
}

func (s *playedStream) reply(w http.ResponseWriter, body map[string]any) {
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.t.Error(err)
	}
}

func TestNoShardIsReadBeforeTheOneThatItFollows(t *testing.T) {
	s := newStream(t)
	names := tables(t, local(t))
	root, left, right, last := &fakeShard{id: "shard-a", closed: true}, &fakeShard{id: "shard-c", parent: "shard-a", closed: true},
		&fakeShard{id: "shard-b", parent: "shard-a"}, &fakeShard{id: "shard-0", parent: "shard-c"}
	s.shards = []*fakeShard{last, right, left, root} // in no order
	first, more, behind := s.put(root, 8), s.put(left, 4), s.put(last, 5)
	s.put(right, 6)
	feed := tail(t, s.url, names)
	got := entryIDs(bring(t, feed, 23))
	if len(got) != 23 || !slices.Equal(got[:8], first) {
		t.Fatalf("it brought %v", got)
	}
	if slices.Index(got, behind[0]) < slices.Index(got, more[3]) {
		t.Errorf("%v came before %v", behind, more)
	}
	// Each is brought once, also to the next process, and what is new in its time.
	again := s.put(right, 2)
	if err := feed.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	feed = tail(t, s.url, names)
	if got := entryIDs(bring(t, feed, 3)); !slices.Equal(got, again) {
		t.Errorf("the next process got %v, not %v", got, again)
	}
	// A shard that ends has others behind it, which are found.
	s.mu.Lock()
	right.closed = true
	s.shards = append(s.shards, &fakeShard{id: "shard-d", parent: "shard-b"})
	s.mu.Unlock()
	found := s.put(s.shards[4], 3)
	if got := entryIDs(bring(t, feed, 3)); !slices.Equal(got, found) {
		t.Errorf("of a new shard it got %v, not %v", got, found)
	}
}

// What is not done in a shard is brought again by the next process, though the shards behind it were begun.
func TestAProcessThatEndsInTheMiddleLeavesTheRestToTheNext(t *testing.T) {
	s := newStream(t)
	names := tables(t, local(t))
	s.shards = []*fakeShard{{id: "shard-a", closed: true}, {id: "shard-b", parent: "shard-a", closed: true}, {id: "shard-c", parent: "shard-b"}}
	var all []string
	for _, f := range s.shards {
		all = append(all, s.put(f, 3)...)
	}
	feed := tail(t, s.url, names)
	if got := entryIDs(bring(t, feed, 9, all[1], all[7])); !slices.Equal(got, all) {
		t.Fatalf("it brought %v", got)
	}
	if err := feed.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	feed = tail(t, s.url, names)
	got := entryIDs(bring(t, feed, 9))
	if !slices.Equal(got, slices.Concat(all[1:3], all[7:])) {
		t.Errorf("the next brought %v of %v", got, all)
	}
}

func TestATailBearsWhatStreamsDo(t *testing.T) {
	s := newStream(t)
	names := tables(t, local(t))
	shard := &fakeShard{id: "shard-a"}
	s.shards = []*fakeShard{shard}
	feed := tail(t, s.url, names)
	one := s.put(shard, 4)
	if got := entryIDs(bring(t, feed, 4)); !slices.Equal(got, one) {
		t.Fatalf("it brought %v", got)
	}
	s.mu.Lock()
	s.generation++ // its iterators expire
	s.mu.Unlock()
	two := s.put(shard, 4)
	if got := entryIDs(bring(t, feed, 4)); !slices.Equal(got, two) {
		t.Errorf("after its iterators expired it brought %v, not %v", got, two)
	}
	for _, fault := range []string{"InternalServerError", "LimitExceededException"} {
		s.mu.Lock()
		s.faults = []string{fault, fault, fault}
		s.mu.Unlock()
		if _, err := feed.Next(t.Context(), 0); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s is %v", fault, err)
		}
		s.mu.Lock()
		s.faults = nil
		s.mu.Unlock()
		next := s.put(shard, 2)
		if got := entryIDs(bring(t, feed, 2)); !slices.Equal(got, next) {
			t.Errorf("after %s it brought %v, not %v", fault, got, next)
		}
	}
	lost := s.put(shard, 3)
	s.mu.Lock()
	s.generation++
	shard.first = len(shard.entries) - 1
	s.mu.Unlock()
	var err error
	for range 3 {
		if _, err = feed.Next(t.Context(), 0); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "latchkey audit publish") {
		t.Errorf("of what was trimmed it says %v", err)
	}
	if got := entryIDs(bring(t, feed, 1)); !slices.Equal(got, lost[2:]) {
		t.Errorf("of what was not trimmed it brought %v, not %v", got, lost[2:])
	}
}

// Whoever turns the stream off and on again has another: it is found once the first is read to its end.
func TestAStreamThatWasTurnedOffIsReadToItsEnd(t *testing.T) {
	s := newStream(t)
	names := tables(t, local(t))
	s.shards, s.off = []*fakeShard{{id: "shard-a", closed: true}, {id: "shard-b", parent: "shard-a", closed: true}}, true
	want := append(s.put(s.shards[0], 4), s.put(s.shards[1], 4)...)
	feed := tail(t, s.url, names)
	if got := entryIDs(bring(t, feed, 8)); !slices.Equal(got, want) {
		t.Errorf("it brought %v, not %v", got, want)
	}
	before := s.calls["DescribeStream"]
	for range 5 {
		if records, err := feed.Next(t.Context(), 0); err != nil || len(records) > 0 {
			t.Errorf("at the end: %v, %v", records, err)
		}
	}
	if s.calls["DescribeStream"] == before {
		t.Error("it does not look for another")
	}
}
