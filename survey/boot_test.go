package survey

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// fakeGuests stand in for QEMU: behave says what a module does to its guest.
type fakeGuests struct {
	behave map[string]behaviour

	mu    sync.Mutex
	dead  int        // boots that die
	boots [][]string // modules that each guest was given, in order of the starts
}

// behaviour is what goes wrong with a module.
type behaviour struct {
	fails   livetest.Kind // the step that fails
	warns   bool
	beside  bool // only behind another one in the same guest
	targets string
}

func (f *fakeGuests) script(_ context.Context, g livetest.Guest, steps []livetest.Step) (*livetest.Report, error) {
	var names []string
	for _, m := range g.Modules {
		names = append(names, strings.TrimSuffix(filepath.Base(m), ".ko"))
	}
	f.mu.Lock()
	f.boots = append(f.boots, names)
	dies := f.dead > 0
	f.dead--
	f.mu.Unlock()
	r := &livetest.Report{Accel: vm.TCG}
	if dies {
		for _, s := range steps {
			r.Steps = append(r.Steps, livetest.StepResult{Step: s, Exit: -1, Problem: "did not run"})
		}
		r.Problems = []string{"the guest died while it booted"}
		return r, nil
	}
	stopped := false
	for i, s := range steps {
		res := livetest.StepResult{Step: s, OK: true, Seconds: 1}
		b := f.behave[s.Phase]
		if b.beside && names[0] == s.Phase {
			b = behaviour{}
		}
		switch {
		case stopped:
			res = livetest.StepResult{Step: s, Exit: -1, Problem: "did not run"}
		case s.Kind == b.fails && s.Expect == livetest.Pass:
			res.OK, res.Exit, res.Problem, stopped = false, 1, "failed (exit status 1)", true
			r.Problems = append(r.Problems, s.Name()+" failed")
		case b.warns && s.Kind == livetest.KindDisable:
			r.Log = append(r.Log, livetest.LogLine{Step: i, Text: "WARNING: " + s.Phase})
			r.Problems = append(r.Problems, "a warning")
		case s.Kind == livetest.KindShow && strings.Contains(s.Subject, "/initstate") && b.targets == "":
			res.Output = "live\n"
		case s.Kind == livetest.KindShow:
			res.Output = b.targets
		}
		r.Steps = append(r.Steps, res)
	}
	r.OK = len(r.Problems) == 0
	return r, nil
}

// tryModules runs testAll over modules that have been built.
func tryModules(t *testing.T, f *fakeGuests, jobs int, names ...string) (*survey, error) {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &survey{o: Options{Kernel: &pipeline.Kernel{BzImage: image, Release: "6.99.0-toy"}, Jobs: jobs, Test: true},
		script: f.script}
	var err error
	if s.dir, err = openFolder(filepath.Join(dir, "atlas"), false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.dir.close() })
	for _, n := range names {
		r := &record{Key: n, Result: Result{Patch: n + ".patch", Verdict: Built, Module: modulePath(n), ModuleSHA256: digest([]byte(n)),
			Functions: []Function{{Object: "vmlinux", Name: "f"}, {Object: "dummy", Name: "g"}, {Object: "dummy", Name: "h"}}}}
		if err := os.WriteFile(s.dir.file(r.Result.Module), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
		s.o.Entries = append(s.o.Entries, Entry{Name: n + ".patch"})
		s.names, s.states = append(s.names, n), append(s.states, r)
	}
	return s, s.testAll(t.Context())
}

func verdicts(s *survey) []string {
	var all []string
	for i, st := range s.states {
		all = append(all, fmt.Sprintf("%s %s", s.names[i], st.Result.Verdict))
	}
	return all
}

func TestIsolation(t *testing.T) {
	for _, tt := range []struct {
		name   string
		behave map[string]behaviour
		dead   int
		want   []string
		boots  [][]string
	}{
		{"all pass in one guest", nil, 0,
			[]string{"a tested", "b tested", "c tested"},
			[][]string{{"a", "b", "c"}}},
		{"the first fails", map[string]behaviour{"a": {fails: livetest.KindInsmod}}, 0,
			[]string{"a test-failed", "b tested", "c tested"},
			[][]string{{"a", "b", "c"}, {"a"}, {"b", "c"}}},
		{"one between fails", map[string]behaviour{"b": {fails: livetest.KindGone}}, 0,
			[]string{"a tested", "b test-failed", "c tested"},
			[][]string{{"a", "b", "c"}, {"b"}, {"c"}}},
		{"one warns, and those behind it are tried in another guest", map[string]behaviour{"b": {warns: true}}, 0,
			[]string{"a tested", "b test-failed", "c tested"},
			[][]string{{"a", "b", "c"}, {"b"}, {"c"}}},
		{"two fail", map[string]behaviour{"a": {warns: true}, "b": {fails: livetest.KindTransition}}, 0,
			[]string{"a test-failed", "b test-failed", "c tested"},
			[][]string{{"a", "b", "c"}, {"a"}, {"b", "c"}, {"b"}, {"c"}}},
		{"spoilt by another one, and good alone", map[string]behaviour{"c": {warns: true, beside: true}}, 0,
			[]string{"a tested", "b tested", "c tested"},
			[][]string{{"a", "b", "c"}, {"c"}}},
		{"the guest dies twice while it boots", nil, 2,
			[]string{"a tested", "b tested", "c tested"},
			[][]string{{"a", "b", "c"}, {"a", "b", "c"}, {"a", "b", "c"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeGuests{behave: tt.behave, dead: tt.dead}
			s, err := tryModules(t, f, 1, "a", "b", "c")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, verdicts(s)); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.boots, f.boots); d != "" {
				t.Errorf("guests:\n%s", d)
			}
			for _, n := range s.names {
				r := s.dir.load(n)
				if r == nil || r.TestKey != s.testKey(&r.Result) || r.Result.Test == nil {
					t.Errorf("%s: the test is not recorded: %+v", n, r)
				}
			}
		})
	}
}

// What failed is told in full, of that module only.
func TestFailedTest(t *testing.T) {
	s, err := tryModules(t, &fakeGuests{behave: map[string]behaviour{"b": {warns: true}}}, 1, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.states[0].Result.Test; len(got.Problems)+len(got.Log) > 0 || s.states[0].Result.Log != "" {
		t.Errorf("a: %+v", got)
	}
	b := s.states[1].Result
	want := &Test{Accel: "tcg", Problems: []string{"a warning"}, Log: []string{"WARNING: b"}, Seconds: 8}
	if d := cmp.Diff(want, b.Test); d != "" {
		t.Error(d)
	}
	if text, err := os.ReadFile(s.dir.file(b.Log)); err != nil || !strings.Contains(string(text), "problem: a warning") {
		t.Errorf("log: %q, %v", text, err)
	}
}

// A guest that never starts is no verdict on a module.
func TestNoGuest(t *testing.T) {
	f := &fakeGuests{dead: 100}
	s, err := tryModules(t, f, 1, "a", "b")
	if err == nil || !strings.Contains(err.Error(), "the guest does not start: the guest died while it booted") {
		t.Errorf("got %v", err)
	}
	if d := cmp.Diff([]string{"a built", "b built"}, verdicts(s)); d != "" {
		t.Error(d)
	}
	if len(f.boots) != maxBoots {
		t.Errorf("%d guests were started", len(f.boots))
	}
}

// Modules that are patched are loaded first, each once; if one does not load,
// that is said and no fault.
func TestTargets(t *testing.T) {
	s, err := tryModules(t, &fakeGuests{behave: map[string]behaviour{"b": {targets: "cat: no such file\n"}}}, 2, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a tested", "b tested"}, verdicts(s)); d != "" {
		t.Error(d)
	}
	if got := s.states[0].Result.Test.NotLoaded; got != nil {
		t.Errorf("a: %v", got)
	}
	if d := cmp.Diff([]string{"dummy"}, s.states[1].Result.Test.NotLoaded); d != "" {
		t.Error(d)
	}
	var names []string
	for _, st := range (trial{name: "livepatch-a", loaded: []string{"dummy"}}).steps() {
		if st.Phase != "livepatch-a" {
			t.Errorf("%s belongs to %q", st.Name(), st.Phase)
		}
		names = append(names, st.Name())
	}
	want := []string{"load dummy", "show: cat /sys/module/dummy/initstate", "load livepatch-a", "wait for the transition of livepatch-a",
		"check: ! [ -e /sys/module/dummy/initstate ] || ! [ -e /sys/kernel/livepatch/livepatch_a/dummy/patched ] || grep -q 1 /sys/kernel/livepatch/livepatch_a/dummy/patched",
		"disable livepatch-a", "wait until livepatch-a is disabled", "remove livepatch-a"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}

// Several guests at once test all modules, each once.
func TestManyGuests(t *testing.T) {
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	f := &fakeGuests{behave: map[string]behaviour{"m07": {warns: true}, "m31": {fails: livetest.KindRmmod}}}
	s, err := tryModules(t, f, 4, names...)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range verdicts(s) {
		want := names[i] + " tested"
		if names[i] == "m07" || names[i] == "m31" {
			want = names[i] + " test-failed"
		}
		if v != want {
			t.Errorf("got %s, want %s", v, want)
		}
	}
	if n := slices.MaxFunc(f.boots, func(a, b []string) int { return len(a) - len(b) }); len(n) > perGuest {
		t.Errorf("a guest was given %d modules", len(n))
	}
}
