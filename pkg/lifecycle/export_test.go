package lifecycle

import (
	"context"
	"time"
)

// Rest has s do this between two attempts of a change, instead of waiting a moment.
func (s *Service) Rest(do func(context.Context) error) { s.rest = do }

// Trying has s take it that each change is tried for so long already, however long that is: for less than half a second
// none is under fire, and from then on every one is.
func (s *Service) Trying(already time.Duration) *Service {
	s.since = func(time.Time) time.Duration { return already }
	return s
}
