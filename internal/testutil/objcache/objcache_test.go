package objcache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tool is a compiler that tells its version, notes each run, and makes of its
// source that and its arguments.
type tool struct {
	t         *testing.T
	dir, path string
}

func newTool(t *testing.T) *tool {
	dir := t.TempDir()
	x := &tool{t, dir, filepath.Join(dir, "gcc-toy")}
	x.write("version", "toy 1\n")
	x.write("gcc-toy", `#!/bin/sh
here=${0%/*}
if [ "$*" = -v ]; then
	echo >>"$here/asked"
	read -r version <"$here/version" && echo "$version"
	exit 0
fi
echo >>"$here/ran"
[ "$1" != -fail ] || exit 1
{ echo "$@"; read -r text; echo "$text"; } <unit.c >unit.o
`)
	if err := os.Chmod(x.path, 0o755); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *tool) write(name, text string) {
	x.t.Helper()
	if err := os.WriteFile(filepath.Join(x.dir, name), []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

// count is how often the tool has run, or has been asked for its version.
func (x *tool) count(name string) int {
	data, err := os.ReadFile(filepath.Join(x.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		x.t.Fatal(err)
	}
	return len(data)
}

func (x *tool) job(text string, args ...string) Job {
	return Job{Files: map[string]string{"unit.c": text + "\n"}, Steps: [][]string{append([]string{x.path}, args...)}, Out: "unit.o"}
}

// want does a job in a cache and tells how often the tool must have run for it.
func (x *tool) want(c *cache, runs int, j Job) {
	x.t.Helper()
	before := x.count("ran")
	got, err := c.make(x.t.TempDir, j)
	if err != nil {
		x.t.Fatal(err)
	}
	if d := cmp.Diff(strings.Join(j.Steps[0][1:], " ")+"\n"+j.Files["unit.c"], string(got)); d != "" {
		x.t.Errorf("-want +got:\n%s", d)
	}
	if n := x.count("ran") - before; n != runs {
		x.t.Errorf("%d runs of the compiler, want %d", n, runs)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestHitAndMiss(t *testing.T) {
	x, dir := newTool(t), t.TempDir()
	c := open(dir, time.Now())
	x.want(c, 1, x.job("a", "-O2"))
	x.want(c, 1, x.job("a", "-O2")) // of two runs, as without a cache
	c = open(dir, time.Now())       // another process
	x.want(c, 0, x.job("a", "-O2"))
	x.want(c, 0, x.job("a", "-O2"))
	x.want(c, 1, x.job("b", "-O2"))
	x.want(c, 1, x.job("a", "-O3"))
	x.want(c, 1, x.job("a", "-O", "2"))
	if n := x.count("asked"); n != 2 {
		t.Errorf("asked for the version %d times by two processes", n)
	}
	header := x.job("a", "-O2")
	header.Files["kernel.h"] = "1"
	x.want(c, 1, header)
	header.Files["kernel.h"] = "2"
	x.want(c, 1, header)
	linked := x.job("a", "-O2")
	linked.Steps = append(linked.Steps, []string{"true", "unit.o"})
	x.want(c, 1, linked)

	x.write("version", "toy 2\n")
	x.want(open(dir, time.Now()), 1, x.job("a", "-O2"))
	x.write("version", "toy 1\n")
	c = open(dir, time.Now())
	x.want(c, 0, x.job("a", "-O2"))
	t.Setenv("CPATH", "/nowhere")
	x.want(open(dir, time.Now()), 1, x.job("a", "-O2"))
}

func TestDamagedEntry(t *testing.T) {
	x, dir := newTool(t), t.TempDir()
	x.want(open(dir, time.Now()), 1, x.job("some text"))
	all := entries(t, dir)
	if len(all) != 1 {
		t.Fatalf("entries: %q", all)
	}
	whole, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte{}, whole...)
	flipped[len(flipped)-1] ^= 1
	for _, damaged := range [][]byte{nil, whole[:10], whole[:len(whole)-1], flipped} {
		if err := os.WriteFile(all[0], damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		x.want(open(dir, time.Now()), 1, x.job("some text"))
		x.want(open(dir, time.Now()), 0, x.job("some text"))
	}
}

// What depends on more than is known, and what fails, is not kept.
func TestNotKept(t *testing.T) {
	x, dir := newTool(t), t.TempDir()
	for range 2 {
		x.want(open(dir, time.Now()), 1, x.job("#include <stdio.h>"))
		if out, err := open(dir, time.Now()).make(t.TempDir, x.job("", "-fail")); err == nil || !strings.Contains(err.Error(), "gcc-toy -fail: exit status 1") {
			t.Errorf("a compiler that fails: %q, %v", out, err)
		}
	}
	x.write("version", "")
	x.want(open(dir, time.Now()), 1, x.job("a"))
	if all := entries(t, dir); len(all) > 0 {
		t.Errorf("kept: %q", all)
	}
	missing := x.job("a")
	missing.Steps[0][0] = filepath.Join(x.dir, "nothing")
	_, err := open(dir, time.Now()).make(t.TempDir, missing)
	if e := (*missingError)(nil); !errors.As(err, &e) {
		t.Errorf("a missing compiler: %v", err)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	x := newTool(t)
	for _, dir := range []string{"", filepath.Join(x.path, "below-a-file"), "/proc/self"} {
		for range 2 {
			x.want(open(dir, time.Now()), 1, x.job("a"))
		}
	}
}

func TestUnusedEntriesAreRemoved(t *testing.T) {
	x, dir := newTool(t), t.TempDir()
	now := time.Now()
	c := open(dir, now)
	x.want(c, 1, x.job("old"))
	x.want(c, 1, x.job("used"))
	for _, e := range entries(t, dir) {
		at := now.Add(-13 * 24 * time.Hour)
		if err := os.Chtimes(e, at, at); err != nil {
			t.Fatal(err)
		}
	}
	x.want(open(dir, now), 0, x.job("used")) // and is thereby a new one
	c = open(dir, now.Add(36*time.Hour))
	x.want(c, 0, x.job("used"))
	x.want(c, 1, x.job("old"))
}
