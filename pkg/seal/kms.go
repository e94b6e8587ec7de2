package seal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/latchkey/latchkey/pkg/amazon"
)

// A whole call of KMS, with all its attempts and the reading of its answer, may take as long as four attempts.
const (
	attemptTimeout = time.Second
	patience       = 4
)

// NewKMS makes a Sealer whose key-encryption key never leaves AWS KMS. The keyID is a symmetric key's id, ARN or alias; the
// process may GenerateDataKey and Decrypt with it. Nothing is asked of KMS yet: a key that does not exist is an error of the
// first Seal.
func NewKMS(access amazon.Access, keyID string) (*Sealer, error) {
	if keyID == "" {
		return nil, errors.New("which key of KMS seals is not said")
	}
	access.AttemptTimeout = cmp.Or(access.AttemptTimeout, attemptTimeout)
	config, err := access.Config()
	if err != nil {
		return nil, err
	}
	return &Sealer{byKMS, remote{kms.NewFromConfig(config), keyID, patience * access.AttemptTimeout}}, nil
}

// remote has its data keys wrapped by KMS.
type remote struct {
	client   *kms.Client
	keyID    string
	patience time.Duration
}

func (r remote) fresh(ctx context.Context, bound string) (key, wrapped []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	out, err := r.client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
		KeyId: &r.keyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: encryptionContext(bound),
	})
	if err != nil {
		return nil, nil, refusal(ctx, "asking KMS for a data key", err)
	}
	return out.Plaintext, out.CiphertextBlob, nil
}

func (r remote) unwrap(ctx context.Context, wrapped []byte, bound string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	out, err := r.client.Decrypt(ctx, &kms.DecryptInput{
		KeyId: &r.keyID, CiphertextBlob: wrapped, EncryptionContext: encryptionContext(bound),
	})
	switch {
	case isSealed(err):
		return nil, ErrSealed
	case err != nil:
		return nil, refusal(ctx, "asking KMS to unwrap a data key", err)
	}
	return out.Plaintext, nil
}

func encryptionContext(bound string) map[string]string { return map[string]string{"latchkey": bound} }

// errorCode is how an error code of AWS is written.
var errorCode = regexp.MustCompile(`^[A-Za-z]{1,64}$`)

// refusal is an error without anything that KMS wrote but its code: a message of KMS can name accounts and keys.
func refusal(ctx context.Context, doing string, err error) error {
	var named smithy.APIError
	var network *net.OpError
	switch {
	case errors.As(err, &named) && errorCode.MatchString(named.ErrorCode()):
		return fmt.Errorf("%s: it refuses: %s", doing, named.ErrorCode())
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case timedOut(err):
		return fmt.Errorf("%s: no answer in time", doing)
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", doing, network)
	}
	return fmt.Errorf("%s: no answer that can be used", doing)
}

// isSealed says whether KMS means that this was wrapped otherwise: by another key, for another bound, or not at all.
func isSealed(err error) bool {
	var changed *types.InvalidCiphertextException
	var otherKey *types.IncorrectKeyException
	return errors.As(err, &changed) || errors.As(err, &otherKey)
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
