package keytest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// SecretsManager plays AWS Secrets Manager, as far as the service speaks to it: secrets, their versions, stages and tokens.
// It never runs a rotation by itself: Begin prepares one as RotateSecret does, and a test calls the steps. It may be used from
// many goroutines.
type SecretsManager struct {
	URL string

	mu      sync.Mutex
	secrets map[string]*stored
	fault   func(action string) SecretsFault
	asked   []string
}

// SecretsFault is what befalls a request. The zero SecretsFault lets it pass.
type SecretsFault struct {
	Code   string // it is refused with this error, of this status
	Status int    // 0: 400
	Lost   bool   // its connection ends without an answer
	After  bool   // and not before it took effect
}

// stored is a secret.
type stored struct {
	Name     string
	Rotates  bool
	Deleted  bool
	Tags     map[string]string
	versions map[string]*version
}

type version struct {
	value  *string // nil: a rotation has begun, and put nothing there yet
	stages []string
}

// NewSecretsManager starts one that ends with the test.
func NewSecretsManager(t testing.TB) *SecretsManager {
	m := &SecretsManager{secrets: map[string]*stored{}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.URL = server.URL
	return m
}

// Fail has requests meet what choose says of their action, such as "PutSecretValue"; nil: all pass.
func (m *SecretsManager) Fail(choose func(action string) SecretsFault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = choose
}

// Asked is the actions of all requests so far.
func (m *SecretsManager) Asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// Set makes a secret, or gives it another value for everybody who reads it.
func (m *SecretsManager) Set(name, token, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.secrets[name]
	if s == nil {
		s = &stored{Name: name, versions: map[string]*version{}}
		m.secrets[name] = s
	}
	s.versions[token] = &version{value: &value}
	s.give(token, current)
}

// Delete schedules a secret for deletion.
func (m *SecretsManager) Delete(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.secrets[name].Deleted = true
}

// Begin begins a rotation as RotateSecret does, which Secrets Manager also does by its schedule: with a version that has no
// value yet. If one is under way it is that one's token that is returned.
func (m *SecretsManager) Begin(name, token string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.secrets[name]
	s.Rotates = true
	if at := s.with(pending); at != "" && at != s.with(current) {
		return at
	}
	s.versions[token] = &version{}
	s.give(token, pending)
	return token
}

// Prepare fills the version that a rotation has begun, as a person may.
func (m *SecretsManager) Prepare(name, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.secrets[name]
	s.versions[s.with(pending)].value = &value
}

// Cancel takes AWSPENDING off, as people do to rotations that do not get on.
func (m *SecretsManager) Cancel(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.secrets[name]
	if at := s.with(pending); at != "" {
		s.versions[at].drop(pending)
	}
}

// Value is what everybody who reads the secret gets, "" for nothing, and the tags that it was made with.
func (m *SecretsManager) Value(name string) (value string, tags map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.secrets[name]
	if s == nil {
		return "", nil
	}
	if v := s.versions[s.with(current)]; v != nil && v.value != nil {
		value = *v.value
	}
	return value, s.Tags
}

// Pending is what a rotation has prepared in the secret, "" for nothing.
func (m *SecretsManager) Pending(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.secrets[name].versions[m.secrets[name].with(pending)]; v != nil && v.value != nil {
		return *v.value
	}
	return ""
}

const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"
	pending  = "AWSPENDING"
)

func (v *version) drop(stage string) {
	v.stages = slices.DeleteFunc(v.stages, func(s string) bool { return s == stage })
}

// with is the version that has a stage.
func (s *stored) with(stage string) string {
	for id, v := range s.versions {
		if slices.Contains(v.stages, stage) {
			return id
		}
	}
	return ""
}

// give moves a stage to a version.
func (s *stored) give(token, stage string) {
	was := s.with(stage)
	if was == token {
		return
	}
	if was != "" {
		s.versions[was].drop(stage)
		if stage == current {
			s.give(was, previous)
		}
	}
	s.versions[token].stages = append(s.versions[token].stages, stage)
}

// question is a request, whatever its action.
type question struct {
	SecretId, Name, ClientRequestToken, SecretString              string
	VersionId, VersionStage, MoveToVersionId, RemoveFromVersionId string
	VersionStages                                                 []string
	Tags                                                          []struct{ Key, Value string }
}

// refusal is the code of an error.
type refusal string

func (m *SecretsManager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var q question
	_ = json.NewDecoder(r.Body).Decode(&q)
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	m.asked = append(m.asked, action)
	var f SecretsFault
	if m.fault != nil {
		f = m.fault(action)
	}
	if f.Code != "" {
		deny(w, f.Status, f.Code)
		return
	}
	if f.Lost && !f.After {
		panic(http.ErrAbortHandler)
	}
	answer, refused := m.answer(action, &q)
	if f.Lost {
		panic(http.ErrAbortHandler)
	}
	if refused != "" {
		deny(w, 0, string(refused))
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(answer)
}

// Words are in every refusal. Nothing of them may come out of the service.
const Words = "User: arn:aws:sts::000000000000:assumed-role/teller/x may not"

func deny(w http.ResponseWriter, status int, code string) {
	if status == 0 {
		status = http.StatusBadRequest
	}
	words := Words
	if code == "InvalidRequestException" {
		words += ": You can't perform this operation on the secret because it was marked for deletion."
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": words})
}

func (m *SecretsManager) answer(action string, q *question) (answer any, refused refusal) {
	if action == "CreateSecret" {
		return m.create(q)
	}
	s := m.secrets[name(q.SecretId)]
	switch {
	case s == nil:
		return nil, "ResourceNotFoundException"
	case s.Deleted:
		return nil, "InvalidRequestException"
	}
	switch action {
	case "PutSecretValue":
		return s.put(q)
	case "GetSecretValue":
		return s.get(q)
	case "UpdateSecretVersionStage":
		return s.move(q)
	case "DescribeSecret":
		stages := map[string][]string{}
		for id, v := range s.versions {
			if len(v.stages) > 0 {
				stages[id] = v.stages
			}
		}
		return map[string]any{"Name": s.Name, "RotationEnabled": s.Rotates, "VersionIdsToStages": stages}, ""
	}
	return nil, "UnknownOperationException"
}

// ARN is the secret's, as events have it.
func ARN(name string) string {
	return "arn:aws:secretsmanager:us-east-1:123456789012:secret:" + name + "-a1B2c3"
}

// name is a secret's, of its name or its ARN.
func name(id string) string {
	if rest, ok := strings.CutPrefix(id, "arn:aws:secretsmanager:us-east-1:123456789012:secret:"); ok {
		return rest[:strings.LastIndexByte(rest, '-')]
	}
	return id
}

func (m *SecretsManager) create(q *question) (any, refusal) {
	if s := m.secrets[q.Name]; s != nil {
		if s.Deleted {
			return nil, "InvalidRequestException"
		}
		return nil, "ResourceExistsException"
	}
	s := &stored{Name: q.Name, Tags: map[string]string{}, versions: map[string]*version{q.ClientRequestToken: {value: &q.SecretString}}}
	s.give(q.ClientRequestToken, current)
	for _, tag := range q.Tags {
		s.Tags[tag.Key] = tag.Value
	}
	m.secrets[q.Name] = s
	return map[string]any{"Name": s.Name, "VersionId": q.ClientRequestToken}, ""
}

func (s *stored) put(q *question) (any, refusal) {
	v := s.versions[q.ClientRequestToken]
	switch {
	case len(q.ClientRequestToken) < 32 || len(q.ClientRequestToken) > 64:
		return nil, "InvalidParameterException"
	case v != nil && v.value != nil && *v.value != q.SecretString:
		return nil, "ResourceExistsException"
	case v == nil || v.value == nil:
		if v == nil {
			v = &version{}
			s.versions[q.ClientRequestToken] = v
		}
		v.value = &q.SecretString
		for _, stage := range q.VersionStages {
			s.give(q.ClientRequestToken, stage)
		}
	}
	return map[string]any{"Name": s.Name, "VersionId": q.ClientRequestToken, "VersionStages": v.stages}, ""
}

func (s *stored) get(q *question) (any, refusal) {
	id := q.VersionId
	if id == "" {
		id = s.with(q.VersionStage)
	}
	v := s.versions[id]
	if v == nil || v.value == nil || q.VersionStage != "" && !slices.Contains(v.stages, q.VersionStage) {
		return nil, "ResourceNotFoundException"
	}
	return map[string]any{"Name": s.Name, "VersionId": id, "SecretString": *v.value, "VersionStages": v.stages}, ""
}

func (s *stored) move(q *question) (any, refusal) {
	if s.with(q.VersionStage) != q.RemoveFromVersionId || q.MoveToVersionId != "" && s.versions[q.MoveToVersionId] == nil {
		return nil, "InvalidParameterException"
	}
	if q.MoveToVersionId == "" {
		s.versions[q.RemoveFromVersionId].drop(q.VersionStage)
	} else {
		s.give(q.MoveToVersionId, q.VersionStage)
	}
	return map[string]any{"Name": s.Name}, ""
}
