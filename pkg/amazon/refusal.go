package amazon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/aws/smithy-go"
)

// Refusal is what came of a call, in words of our own: an error without anything that AWS wrote but its code, as its
// messages may hold names of the account's. nil for nil.
func Refusal(ctx context.Context, doing string, err error) error {
	var named smithy.APIError
	var network *net.OpError
	var slow net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &named) && IsCode(named.ErrorCode()):
		return fmt.Errorf("%s: it refuses: %s", doing, named.ErrorCode())
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("%s: no answer in time", doing)
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", doing, network)
	}
	return fmt.Errorf("%s: no answer that can be used", doing)
}

// IsCode says whether a text is written as AWS writes the code of an error, and is one: UnknownError is what the SDK says
// where it found none.
func IsCode(text string) bool { return text != "UnknownError" && code.MatchString(text) }

var code = regexp.MustCompile(`^[A-Za-z]{1,64}$`)
