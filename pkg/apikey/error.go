package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// ErrConflict is what a store returns when another change of the same items was under way. Nothing was changed; trying
// again is right.
var ErrConflict = errors.New("the store is busy with another change of the same key")

// Code is a stable, machine-readable reason. It travels in the body of every refusal.
type Code string

// Why a key was refused, or that it was not. These are the codes of a decision.
const (
	Valid              Code = "valid"
	MissingKey         Code = "missing"
	MalformedKey       Code = "malformed"
	UnknownKey         Code = "unknown"
	RevokedKey         Code = "revoked"
	ArchivedKey        Code = "archived"
	DisabledKey        Code = "disabled"
	ExpiredKey         Code = "expired"
	InsufficientScope  Code = "insufficient_scope"
	ManagementKeyOnly  Code = "management_key" // a key with management scopes alone opens no protected API
	AddressNotAllowed  Code = "ip_not_allowed"
	RateLimited        Code = "rate_limited"
	DailyLimitExceeded Code = "daily_limit_exceeded"
	Unavailable        Code = "unavailable"
)

// Why a request was refused.
const (
	InvalidJSON        Code = "invalid_json"
	InvalidFields      Code = "invalid_fields"
	UnsupportedMedia   Code = "unsupported_media_type"
	BodyTooLarge       Code = "body_too_large"
	NotFound           Code = "not_found"
	MethodNotAllowed   Code = "method_not_allowed"
	ScopeNotHeld       Code = "scope_not_held"
	ScopeNotAllowed    Code = "scope_not_allowed"
	Escalation         Code = "escalation"
	PlanRefused        Code = "plan_limit"
	OwnKey             Code = "own_key"
	WrongState         Code = "wrong_state"
	AlreadyRotated     Code = "already_rotated"
	RotationInProgress Code = "rotation_in_progress"
	NotInGrace         Code = "not_in_grace"
	PlanFull           Code = "plan_full"        // a key cannot come back: all places are taken
	InvalidToken       Code = "invalid_token"    // of a person: not signed by a known issuer, expired, not for this service
	KeyNotAllowed      Code = "key_not_allowed"  // a key, where only a person may
	InvalidHeader      Code = "invalid_header"   // Idempotency-Key or If-Match
	VersionMismatch    Code = "version_mismatch" // If-Match names another version
	OtherRequest       Code = "other_request"    // the Idempotency-Key was used for another body
	SecretDestroyed    Code = "secret_destroyed" // the answer to be replayed held the secret of a key revoked since
	NoSealingKey       Code = "no_sealing_key"   // this service has nothing to seal answers with
	TooMany            Code = "too_many"         // there are as many as there may be
	Internal           Code = "internal"
)

// statuses gives every code its HTTP status and title.
var statuses = map[Code]struct {
	status int
	title  string
}{
	Valid:              {http.StatusOK, "Valid"},
	MissingKey:         {http.StatusUnauthorized, "No API key"},
	MalformedKey:       {http.StatusUnauthorized, "Malformed API key"},
	UnknownKey:         {http.StatusUnauthorized, "Unknown API key"},
	RevokedKey:         {http.StatusUnauthorized, "Revoked API key"},
	ArchivedKey:        {http.StatusUnauthorized, "Archived API key"},
	DisabledKey:        {http.StatusUnauthorized, "Disabled API key"},
	ExpiredKey:         {http.StatusUnauthorized, "Expired API key"},
	InsufficientScope:  {http.StatusForbidden, "Insufficient scope"},
	ManagementKeyOnly:  {http.StatusForbidden, "Management key"},
	AddressNotAllowed:  {http.StatusForbidden, "Address not allowed"},
	RateLimited:        {http.StatusTooManyRequests, "Rate limit reached"},
	DailyLimitExceeded: {http.StatusTooManyRequests, "Daily limit reached"},
	Unavailable:        {http.StatusServiceUnavailable, "Temporarily unavailable"},
	InvalidJSON:        {http.StatusBadRequest, "Invalid JSON"},
	InvalidFields:      {http.StatusUnprocessableEntity, "Invalid fields"},
	UnsupportedMedia:   {http.StatusUnsupportedMediaType, "Unsupported media type"},
	BodyTooLarge:       {http.StatusRequestEntityTooLarge, "Body too large"},
	NotFound:           {http.StatusNotFound, "Not found"},
	MethodNotAllowed:   {http.StatusMethodNotAllowed, "Method not allowed"},
	ScopeNotHeld:       {http.StatusForbidden, "Scope not held"},
	ScopeNotAllowed:    {http.StatusForbidden, "Scope not allowed"},
	Escalation:         {http.StatusForbidden, "Escalation refused"},
	PlanRefused:        {http.StatusForbidden, "Refused by the plan"},
	OwnKey:             {http.StatusConflict, "Own key"},
	WrongState:         {http.StatusConflict, "Wrong state"},
	AlreadyRotated:     {http.StatusConflict, "Already rotated"},
	RotationInProgress: {http.StatusConflict, "Rotation in progress"},
	NotInGrace:         {http.StatusConflict, "Not in grace"},
	PlanFull:           {http.StatusConflict, "Plan full"},
	InvalidToken:       {http.StatusUnauthorized, "Invalid token"},
	KeyNotAllowed:      {http.StatusForbidden, "API key not allowed"},
	InvalidHeader:      {http.StatusBadRequest, "Invalid header"},
	VersionMismatch:    {http.StatusPreconditionFailed, "Version mismatch"},
	OtherRequest:       {http.StatusUnprocessableEntity, "Other request"},
	SecretDestroyed:    {http.StatusConflict, "Secret destroyed"},
	NoSealingKey:       {http.StatusUnprocessableEntity, "No sealing key"},
	TooMany:            {http.StatusConflict, "Too many"},
	Internal:           {http.StatusInternalServerError, "Internal error"},
}

// Status is the HTTP status that the code is answered with; 500 for a code that is not one of ours.
func (c Code) Status() int {
	if s, ok := statuses[c]; ok {
		return s.status
	}
	return http.StatusInternalServerError
}

// Title is the code's short text for people.
func (c Code) Title() string { return statuses[c].title }

// Error is the one error that clients see: a stable code and a message that is safe to show and says what to do.
// Whatever is not an Error is internal: logged, and answered as Internal.
type Error struct {
	Code      Code
	Message   string
	Fields    []FieldError
	Scope     string // the scope that was missing, for InsufficientScope
	RequestID string // set by the door that answers
	Cause     error  // what lies behind it, for a log alone
}

// FieldError says what is wrong with one field of a request.
type FieldError struct {
	Pointer string `json:"pointer"` // RFC 6901
	Detail  string `json:"detail"`
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalid makes the Error for fields, or nil when there are none.
func Invalid(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return &Error{Code: InvalidFields, Message: "Some fields are invalid: see errors.", Fields: fields}
}

// Error is for logs and errors.Is chains; clients get the JSON.
func (e *Error) Error() string {
	text := string(e.Code) + ": " + e.Message
	for _, f := range e.Fields {
		text += " " + f.Pointer + " " + f.Detail + "."
	}
	return text
}

// Unwrap is the Cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf is the code of the Error inside err, Internal when there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// problem is an Error as problem details (RFC 9457).
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      Code         `json:"code"`
	RequestID string       `json:"request_id,omitempty"`
	Scope     string       `json:"scope,omitempty"`
	Errors    []FieldError `json:"errors,omitempty"`
	Violated  []string     `json:"violated-policies,omitempty"`
}

// quotaExceeded is the registered problem type for limits (draft-ietf-httpapi-ratelimit-headers-11, section 6.1).
const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// Policy names the limit in RateLimit fields and problem details: "minute" or "day" for a code that reports a reached
// limit, otherwise "".
func (c Code) Policy() string {
	switch c {
	case RateLimited:
		return "minute"
	case DailyLimitExceeded:
		return "day"
	}
	return ""
}

// MarshalJSON prints the Error as problem details (RFC 9457) with the members code, request_id and errors.
func (e *Error) MarshalJSON() ([]byte, error) {
	p := problem{Type: "about:blank", Title: e.Code.Title(), Status: e.Code.Status(), Detail: e.Message, Code: e.Code,
		RequestID: e.RequestID, Scope: e.Scope, Errors: e.Fields}
	if policy := e.Code.Policy(); policy != "" {
		p.Type, p.Violated = quotaExceeded, []string{policy}
	}
	return json.Marshal(p)
}

// UnmarshalJSON reads what MarshalJSON prints, so that a client has the same Error as the service.
func (e *Error) UnmarshalJSON(b []byte) error {
	var p problem
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("reading problem details: %w", err)
	}
	*e = Error{Code: p.Code, Message: p.Detail, Fields: p.Errors, Scope: p.Scope, RequestID: p.RequestID}
	return nil
}
