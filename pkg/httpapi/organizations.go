package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/latchkey/latchkey/pkg/apikey"
	"github.com/latchkey/latchkey/pkg/lifecycle"
)

// The shape at /organizations/api-keys: ids are numbers, and keys are archived and brought back.

type keyInOrganization struct {
	ID         uint64     `json:"id"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	ArchivedAt *time.Time `json:"archived_at"`
}

func inOrganization(k *apikey.Key) keyInOrganization {
	return keyInOrganization{k.ID.Number(), k.Name, k.KeyPrefix, k.CreatedAt, k.LastUsedAt, k.ArchivedAt}
}

func byNumber(r *request) apikey.ID { return r.keyNamed(apikey.ParseNumber, apikey.ParseID) }

type createdInOrganization struct {
	ID         uint64     `json:"id"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix"`
	Key        string     `json:"key"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

func (a *API) createInOrganization(ctx context.Context, n creation, h http.Header) (createdInOrganization, error) {
	issued, err := a.issue(ctx, n, h, func(k *apikey.Key) string { return "api-keys/" + strconv.FormatUint(k.ID.Number(), 10) })
	k := &issued.Key
	return createdInOrganization{k.ID.Number(), k.Name, k.KeyPrefix, issued.Plaintext.Reveal(), k.CreatedAt, k.LastUsedAt}, err
}

func readWithArchived(r *request) lifecycle.Filter {
	return lifecycle.Filter{IncludeArchived: r.flag("include_archived")}
}

type listInOrganization struct {
	Keys []keyInOrganization `json:"api_keys"`
}

func (a *API) listInOrganization(ctx context.Context, f lifecycle.Filter, _ http.Header) (listInOrganization, error) {
	list, err := listAs(ctx, a, f, inOrganization)
	return listInOrganization{list}, err
}

func (a *API) archiveInOrganization(ctx context.Context, id apikey.ID, h http.Header) (keyInOrganization, error) {
	k, err := a.archive(ctx, id, h)
	return inOrganization(&k), err
}

func (a *API) reactivateInOrganization(ctx context.Context, id apikey.ID, h http.Header) (keyInOrganization, error) {
	k, err := a.reactivate(ctx, id, h)
	return inOrganization(&k), err
}
