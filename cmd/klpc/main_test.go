package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/pipeline"
)

func TestPrintError(t *testing.T) {
	one, two, three := errors.New("one"), errors.New("two"), errors.New("three")
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"single", one, "klpc: one\n"},
		{"lines", errors.New("make: exit status 2:\nld: no\nld: memory\n"), "klpc: make: exit status 2:\n  ld: no\n  ld: memory\n"},
		{"joined", errors.Join(one, errors.Join(two, three)), "klpc: one\nklpc: two\nklpc: three\n"},
		{"joined and wrapped", fmt.Errorf("open: %w", errors.Join(one, two)), "klpc: open: one\n  two\n"},
		{"two causes in one sentence", fmt.Errorf("%w, after %w", one, two), "klpc: one, after two\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			(&app{err: &b}).printError(tt.err)
			if d := cmp.Diff(tt.want, b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPrintFindings(t *testing.T) {
	var b bytes.Buffer
	printFindings(ui.NewProgress(&b, ui.Quiet), &pipeline.Report{
		NoEffect: []string{"README"}, Notes: []string{"two\nlines"},
		Problems: []elfdiff.JSONProblem{
			{Kind: elfdiff.DataChanged, Where: "kernel/fork.c: limit (.data)", Detail: "it has changed", Hint: "leave it alone"},
			{Kind: elfdiff.InitCode, Where: "kernel/fork.c", Detail: "only init code changes", Hint: "use a callback"},
		}})
	want := `klpc: note: README: no effect on this kernel
klpc: note: two
  lines
klpc: problem: kernel/fork.c: limit (.data): it has changed [data-changed]
  what to do: leave it alone
klpc: problem: kernel/fork.c: only init code changes [init-code]
  what to do: use a callback
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

// The command that goes on with a work folder is the one that was given, with
// the folder and the step.
func TestGoOnCommand(t *testing.T) {
	for _, tt := range []struct{ name, args, from, want string }{
		{"plain", "build|--keep|--kernel|debian|fix.patch", "link", "klpc build --from link --work /tmp/klpc-1 --kernel debian fix.patch"},
		{"again", "build|--from|compile|--work=/old|--kernel|debian|fix.patch", "plan", "klpc build --from plan --work /tmp/klpc-1 --kernel debian fix.patch"},
		{"quotes", "build|--keep|--kernel|my tree|it's.patch", "plan", `klpc build --from plan --work /tmp/klpc-1 --kernel 'my tree' 'it'\''s.patch'`},
		{"end of flags", "build|--keep|--|--from|--keep", "plan", "klpc build --from plan --work /tmp/klpc-1 -- --from --keep"},
		{"done", "build|--keep|fix.patch", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := goOnCommand(strings.Split(tt.args, "|"), pipeline.KeptEvent{Dir: "/tmp/klpc-1", From: tt.from})
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A run whose context has ended says so and nothing else.
func TestInterrupted(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"build", "--kernel", t.TempDir(), "fix.patch"}, &stdout, &stderr)
	if code != exitFailed || stdout.Len() > 0 || stderr.String() != "klpc: interrupted\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

// Lists of a report are never null in JSON, whatever ended the build.
func TestReportWithoutLists(t *testing.T) {
	var b bytes.Buffer
	if err := printJSON(&b, withLists(&pipeline.Report{Kernel: "6.99.0", Name: "livepatch-fix"})); err != nil {
		t.Fatal(err)
	}
	want := `{
  "kernel": "6.99.0",
  "name": "livepatch-fix",
  "objects": [],
  "problems": [],
  "risks": []
}
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestBuildFlags(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want buildOptions
	}{
		{"least", []string{"--kernel", "debian", "fix.patch"}, buildOptions{
			kernel: pipeline.KernelOptions{Kernel: "debian"}, build: pipeline.BuildOptions{Patches: []string{"fix.patch"}}, progress: ui.Auto,
			cacheSize: pipeline.DefaultCacheSize,
		}},
		{"all", []string{"--kernel", "linux", "-o", "x.ko", "--name", "x", "--no-replace", "-j", "3", "--fuzz", "2", "--keep",
			"--json", "--timings", "--progress", "plain", "--allow-compiler-mismatch", "--cache-size", "1G", "a.patch", "b.patch"}, buildOptions{
			kernel: pipeline.KernelOptions{Kernel: "linux", AllowCompilerMismatch: true},
			build: pipeline.BuildOptions{Patches: []string{"a.patch", "b.patch"}, Output: "x.ko", Name: "x", NoReplace: true,
				Jobs: 3, Fuzz: 2, Keep: true},
			progress: ui.Plain, json: true, timing: true, cacheSize: 1 << 30,
		}},
		{"parts", []string{"--source", "src", "--config", "c", "--symvers", "s", "--image", "i", "--release", "r", "--modules-dir", "m", "fix.patch"},
			buildOptions{
				kernel: pipeline.KernelOptions{Source: "src", Config: "c", Symvers: "s", Image: "i", Release: "r", Modules: "m"},
				build:  pipeline.BuildOptions{Patches: []string{"fix.patch"}}, progress: ui.Auto, cacheSize: pipeline.DefaultCacheSize,
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got buildOptions
			cmd := newBuild(&app{}, func(_ context.Context, _ *app, o buildOptions) error {
				got = o
				return nil
			})
			cmd.SetArgs(tt.args)
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(buildOptions{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTestFlags(t *testing.T) {
	var got testOptions
	cmd := newTest(&app{}, func(_ context.Context, _ *app, o testOptions) error {
		got = o
		return nil
	})
	cmd.SetArgs([]string{"fix.ko", "--kernel", "debian", "--modules", "a,b", "--check", "one, two", "--check", "three", "--show", "four",
		"--accel", "tcg", "--late", "--timeout", "90s", "--console", "--json", "--progress", "quiet"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := testOptions{
		kernel: pipeline.KernelOptions{Kernel: "debian"}, module: "fix.ko", modules: []string{"a", "b"},
		checks: []string{"one, two", "three"}, shows: []string{"four"}, accel: "tcg", late: true, timeout: 90 * time.Second,
		console: true, json: true, progress: ui.Quiet,
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(testOptions{})); d != "" {
		t.Error(d)
	}
}
