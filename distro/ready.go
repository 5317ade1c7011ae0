package distro

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// stampFormat changes whenever trees are prepared differently: those of
// another format are prepared again.
const stampFormat = 1

// Names in a tree's directory.
const (
	readyName   = "ready" // the stamp, written last
	givenConfig = "config"
)

// stamp says that the tree in its directory is whole, and how it was made.
// Without it nothing in the directory is trusted.
type stamp struct {
	Format   int
	Dir      string // absolute: the prepared tree holds absolute paths, so it cannot be moved
	Release  string
	Version  string
	Source   string // of a kernel from parts: the caller's; "" if source and image lie in Dir
	Compiler compiler
	Pahole   string
	Warnings []string
}

// dirName names a tree's directory, without what compiler.suffix adds. A colon
// would end an epoch, and the kernel's Makefile refuses it.
func dirName(release, version string) string {
	return release + "_" + strings.ReplaceAll(version, ":", "_")
}

func (s stamp) write() error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(s.Dir, readyName), append(b, '\n'), 0o644)
}

// readStamps returns the stamps of whole trees of a release, newest version
// first.
func readStamps(root, release string) ([]stamp, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("cache of kernels: %w", err)
	}
	var stamps []stamp
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), release+"_") {
			continue
		}
		if s, ok := readStamp(filepath.Join(root, e.Name())); ok && s.Release == release {
			stamps = append(stamps, s)
		}
	}
	slices.SortStableFunc(stamps, func(a, b stamp) int { return CompareVersions(b.Version, a.Version) })
	return stamps, nil
}

// readStamp returns the stamp of a directory if the tree in it can be used.
func readStamp(dir string) (stamp, bool) {
	b, err := os.ReadFile(filepath.Join(dir, readyName))
	if err != nil {
		return stamp{}, false
	}
	var s stamp
	if json.Unmarshal(b, &s) != nil || s.Format != stampFormat || s.Dir != dir {
		return stamp{}, false
	}
	t := s.tree()
	files := []string{filepath.Join(t.Source, "Makefile"), t.Config, t.Symvers, t.Commands}
	if s.Source == "" {
		files = append(files, t.BzImage, t.ModulesDir)
	}
	// Cheap, and tells when somebody tidied the cache by hand.
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			return stamp{}, false
		}
	}
	return s, true
}

// tree returns the tree that a stamp stands for.
func (s stamp) tree() *Tree {
	build := filepath.Join(s.Dir, "build")
	t := &Tree{
		Release:  s.Release,
		Version:  s.Version,
		Source:   s.Source,
		Build:    build,
		Config:   filepath.Join(build, ".config"),
		Symvers:  filepath.Join(build, "Module.symvers"),
		CC:       s.Compiler.Program,
		MakeArgs: makeArgs(s.Release, s.Compiler.Program, s.Pahole),
		Env:      makeEnv(os.Environ()),
		Commands: filepath.Join(s.Dir, "commands.zst"),
	}
	if s.Source == "" {
		t.Source = filepath.Join(s.Dir, "source")
		// Where they lie was checked when they were unpacked, and again by readStamp.
		t.BzImage, t.ModulesDir, _ = findImage(filepath.Join(s.Dir, "image"), s.Release)
	}
	if w := s.Compiler.warning(); w != "" {
		t.Warnings = append(t.Warnings, w)
	}
	t.Warnings = append(t.Warnings, s.Warnings...)
	return t
}
