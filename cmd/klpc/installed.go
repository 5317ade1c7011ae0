package main

// The patch store as the commands on the running kernel see it.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/klpc/klpc/livepatch"
)

// storeRoot is where klpc install puts modules, in a folder for each kernel.
const storeRoot = "/var/lib/klpc"

// findInstalled returns the file of an installed livepatch.
func findInstalled(release, name string) (string, error) {
	for _, n := range []string{name, livepatch.Canonical(name), "livepatch_" + livepatch.Canonical(name)} {
		path := filepath.Join(storeRoot, release, n+".ko")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w for kernel %s (%s), and there is no such file", name, errNotInstalled, release, filepath.Join(storeRoot, release))
}

// installed is a livepatch in the store.
type installed struct {
	Release string `json:"release"`
	Name    string `json:"name"`
}

// listInstalled returns what is in the store, by release, then by name.
func listInstalled() ([]installed, error) {
	files, err := filepath.Glob(filepath.Join(storeRoot, "*", "*.ko"))
	if err != nil {
		return nil, err
	}
	all := []installed{}
	for _, f := range files {
		all = append(all, installed{filepath.Base(filepath.Dir(f)), strings.TrimSuffix(filepath.Base(f), ".ko")})
	}
	return all, nil
}
