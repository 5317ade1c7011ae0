package e2e

// Builds that end before their end, and go on.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klpc/klpc/pipeline"
)

// progressLine is a line of --progress=json, as far as these tests look.
type progressLine struct {
	Event, Step, Text, Work, From, Command string
	Index, Total, Done                     int
}

// killedAt starts a build and kills it as soon as it says that a step begins.
func killedAt(t *testing.T, cmd *exec.Cmd, step string) {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := false
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var l progressLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Errorf("not JSON: %s", lines.Text())
		}
		if l.Event == "step" && l.Step == step && !seen {
			seen = true
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !seen {
		t.Fatalf("the build was not killed in the step %s: %v", step, err)
	}
}

// TestGoOn: a build is killed at each of its steps, and one is stopped by a
// make that fails. From there it goes on, without the compiler where that is
// done, and gives the module that an undisturbed build gives.
func TestGoOn(t *testing.T) {
	needBoot(t)
	t.Parallel()
	tree, program := builtTree(t), buildProgram(t)
	patch := filepath.Join("..", "testdata", "patches", "three-files.patch")
	build := func(p place, args ...string) *exec.Cmd {
		return p.command(t.Context(), program, append([]string{"--kernel", tree, "--progress", "json", "--cache-size", "0", patch}, args...)...)
	}
	first := newPlace(t)
	if out, err := build(first).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := first.module(t)
	same := func(t *testing.T, p place, cmd *exec.Cmd, compiles bool) {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got, err := os.ReadFile(filepath.Join(p.out, "livepatch-run.ko")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the module is another one: %d and %d bytes, %v", len(got), len(want), err)
		}
		if compiles != bytes.Contains(out, []byte(`"text":"compile 2 units`)) {
			t.Errorf("compiled again: want %v\n%s", compiles, out)
		}
	}
	for i, s := range pipeline.BuildSteps() {
		switch s.Name {
		case "preprocess":
			continue // there is nothing to preprocess, so the step says nothing
		case "compile", "link":
		default:
			if os.Getenv("KLPC_TEST_ALL") != "1" {
				continue
			}
		}
		t.Run("killed/"+s.Name, func(t *testing.T) {
			p := newPlace(t)
			killedAt(t, build(p, "--keep"), s.Name)
			// The folder is found by itself.
			same(t, p, build(p, "--from", s.Name), i < 4)
		})
	}
	t.Run("failed", func(t *testing.T) { failedLink(t, build, same) })
}

// failedLink: the message of a build that fails says which command goes on.
func failedLink(t *testing.T, build func(place, ...string) *exec.Cmd, same func(*testing.T, place, *exec.Cmd, bool)) {
	p, bin := newPlace(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "make"), []byte("#!/bin/sh\necho 'make: No space left on device' >&2\nexit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := build(p, "--keep")
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it does not fail:\n%s", out)
	}
	var kept progressLine
	for line := range strings.Lines(string(out)) {
		var l progressLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Errorf("not JSON: %s", line)
		}
		if l.Event == "kept" {
			kept = l
		}
	}
	if kept.From != "link" || filepath.Dir(kept.Work) != p.tmp {
		t.Fatalf("it says %+v\n%s", kept, out)
	}
	again := exec.CommandContext(t.Context(), "sh", "-c", kept.Command)
	again.Env = append(os.Environ(), "TMPDIR="+p.tmp, "PATH="+filepath.Dir(cmd.Path)+":"+os.Getenv("PATH"))
	same(t, p, again, false)
	// And once more, with nothing left to do but what is asked for.
	same(t, p, build(p, "--from", "link"), false)
}
