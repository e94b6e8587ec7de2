package publish_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/latchkey/latchkey/pkg/audit"
	"github.com/latchkey/latchkey/pkg/publish"
)

// records are those of entries, numbered from 1.
func records(list []audit.Entry) (all []publish.Record) {
	for i, e := range list {
		all = append(all, publish.Record{ID: fmt.Sprint(i + 1), Change: "INSERT", OrganizationID: e.OrganizationID, EntryID: e.ID, Entry: e})
	}
	return all
}

func ids(records []publish.Record) (list []string) {
	for _, r := range records {
		list = append(list, r.ID)
	}
	return list
}

func TestARecordThatCannotBeReadStopsItsOrganizationAndNobodyElse(t *testing.T) {
	w := newWorld(t)
	list := entries(3, "acme", "globex") // acme has 1, 3 and 5
	batch := records(list)
	batch[2].Err = errors.New("its schema is version 2, not 1")
	left, err := w.publisher().Take(t.Context(), batch)
	if !slices.Equal(ids(left), []string{"3", "5"}) || !errors.Is(err, batch[2].Err) {
		t.Errorf("left are %v, %v", ids(left), err)
	}
	if len(w.chains["acme"]) != 1 || len(w.chains["globex"]) != 3 || len(w.sent) != 4 {
		t.Errorf("published are %v", w.chains)
	}
}

func TestTheFirstRecordThatIsLeftIsWhereAFeedBeginsAgain(t *testing.T) {
	w := newWorld(t)
	w.fault = func(call, o string) (before, after error) {
		if call == "put" && o == "globex" {
			return errDown, nil
		}
		return nil, nil
	}
	p, batch := w.publisher(), records(entries(3, "acme", "globex"))
	left, err := p.Take(t.Context(), batch)
	if !slices.Equal(ids(left), []string{"2", "4", "6"}) || err == nil {
		t.Errorf("left are %v, %v", ids(left), err)
	}
	if left, err := p.Take(t.Context(), batch[1:]); !slices.Equal(ids(left), []string{"2", "4", "6"}) || err == nil || len(w.sent) != 3 {
		t.Errorf("left are %v, %v, and %d events were sent", ids(left), err, len(w.sent))
	}
}

func TestTamperingRaisesAnAlarmAndIsNotChained(t *testing.T) {
	w, log := newWorld(t), new(bytes.Buffer)
	p := w.publisher()
	p.Log = slog.New(slog.NewJSONHandler(log, nil))
	list := entries(1, "acme", "globex")
	batch := records(list)
	id := audit.NewID(start)
	batch = append(batch,
		publish.Record{ID: "3", Kind: publish.Tampered, Change: "REMOVE", OrganizationID: "acme", EntryID: id, At: start},
		publish.Record{ID: "4", Kind: publish.Foreign, Change: "INSERT", OrganizationID: "D#development", EntryID: "marker"})
	fail := true
	w.fault = func(call, _ string) (before, after error) {
		if call == "alarm" && fail {
			return errDown, nil
		}
		return nil, nil
	}
	if left, err := p.Take(t.Context(), batch); !slices.Equal(ids(left), []string{"3"}) || !errors.Is(err, errDown) {
		t.Errorf("with a bus that does not take the alarm, left are %v, %v", ids(left), err)
	}
	fail = false
	if left, err := p.Take(t.Context(), batch); err != nil || left != nil {
		t.Errorf("left are %v, %v", ids(left), err)
	}
	w.holds(list)
	want := fmt.Sprintf(`"level":"ERROR","msg":"audit trail tampered with","event":"REMOVE","organization_id":"acme","entry_id":%q}`, id)
	if !strings.Contains(log.String(), want) {
		t.Errorf("the log has no %s: %s", want, log)
	}
	want = fmt.Sprintf(`{"version":1,"id":"tampered-3","type":"audit.tampered","timestamp":"2026-11-22T12:00:00Z","data":{"organization_id":"acme","entry_id":%q,"change":"REMOVE"}}`, id)
	if len(w.alarms) != 1 || string(w.alarms[0].Detail) != want || w.alarms[0].Type != "audit.tampered" {
		t.Errorf("the bus got %s", w.alarms)
	}
	p.Bus = nil
	if left, err := p.Take(t.Context(), batch[2:]); err != nil || left != nil {
		t.Errorf("without a bus left are %v, %v", ids(left), err)
	}
}
