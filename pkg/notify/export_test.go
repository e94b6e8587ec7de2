package notify

import "context"

// Rest has s do this between two attempts of a change, instead of waiting a moment.
func (s *Service) Rest(do func(context.Context) error) { s.rest = do }
