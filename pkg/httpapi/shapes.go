package httpapi

import (
	"context"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// What the shapes other than the native one have in common. Each is one file that reads its requests, calls the same
// verbs, and prints what comes back: what may be done, and by whom, it leaves to them.

// defaultProject is the project of keys made in shapes that know none.
const defaultProject = "default"

// readNamed reads a new key that is given a name and nothing else.
func readNamed(r *request) (n creation) {
	r.body()
	n.once, n.ProjectID = r.once(), defaultProject
	r.name(&n.Name)
	r.merge(n.Validate(r.now))
	return n
}

// listAs is the keys that a filter finds, up to lifecycle.MaxList of them, each as a shape prints it.
func listAs[T any](ctx context.Context, a *API, f lifecycle.Filter, as func(*apikey.Key) T) ([]T, error) {
	list := []T{}
	for {
		keys, next, err := a.Keys.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for i := range keys[:min(len(keys), lifecycle.MaxList-len(list))] {
			list = append(list, as(&keys[i]))
		}
		if f.Cursor = next; next == "" || len(list) == lifecycle.MaxList {
			return list, nil
		}
	}
}
