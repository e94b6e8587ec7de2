package seal

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

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
		return nil, nil, amazon.Refusal(ctx, "asking KMS for a data key", err)
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
		return nil, amazon.Refusal(ctx, "asking KMS to unwrap a data key", err)
	}
	return out.Plaintext, nil
}

func encryptionContext(bound string) map[string]string { return map[string]string{"latchkey": bound} }

// isSealed says whether KMS means that this was wrapped otherwise: by another key, for another bound, or not at all.
func isSealed(err error) bool {
	var changed *types.InvalidCiphertextException
	var otherKey *types.IncorrectKeyException
	return errors.As(err, &changed) || errors.As(err, &otherKey)
}
