package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// remembered is how many notices are remembered; Latchkey repeats none after so many others.
const remembered = 100

// state is what the file holds: the key and the notices that were taken are one thing, so that neither is ever without the
// other.
type state struct {
	Key   string   `json:"key"`
	Taken []string `json:"taken,omitempty"` // ids of notices, the latest last
}

func (s state) has(id string) bool { return slices.Contains(s.Taken, id) }

func (s state) with(id, key string) state {
	taken := append(slices.Clone(s.Taken), id)
	return state{key, taken[max(0, len(taken)-remembered):]}
}

func read(file string) (s state, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if json.Unmarshal(b, &s) != nil || s.Key == "" {
		return s, errors.New(file + ` is not {"key": "…"}`)
	}
	return s, nil
}

// write replaces the file whole, for its owner alone: whoever reads it finds the old key or the new, and after a crash too.
func write(file string, s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return settle(filepath.Dir(file))
}

// settle makes a rename in a folder outlast a loss of power.
func settle(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
