package main

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/livepatch"
	"github.com/klpc/klpc/store"
)

func TestRunningFlags(t *testing.T) {
	change := changeOptions{wait: seconds(time.Minute), lockWait: seconds(2 * time.Minute), progress: ui.Auto}
	stall := change
	stall.onTimeout = timeoutReverse
	all := changeOptions{wait: seconds(5 * time.Second), forceAfter: seconds(3 * time.Second), onTimeout: timeoutLeave,
		lockWait: 0, dryRun: true, json: true, progress: ui.Quiet}
	allFlags := []string{"--wait", "5", "--force-after", "3s", "--on-timeout", "leave", "--lock-wait", "0", "--dry-run", "--json", "--progress", "quiet"}
	var load loadOptions
	var unload unloadOptions
	var named namedChange
	var force forceOptions
	var status statusOptions
	named0 := func(_ context.Context, _ *app, o namedChange) error { named = o; return nil }
	for _, tt := range []struct {
		args []string
		got  any
		want any
	}{
		{[]string{"load", "a.ko", "b"}, &load, &loadOptions{changeOptions: stall, args: []string{"a.ko", "b"}}},
		{append([]string{"load", "a.ko", "--allow-drop", "--store", "s"}, allFlags...), &load, &loadOptions{changeOptions: all, args: []string{"a.ko"}, allowDrop: true, store: "s"}},
		{[]string{"unload", "a"}, &unload, &unloadOptions{changeOptions: stall, names: []string{"a"}}},
		{append([]string{"unload", "--all"}, allFlags...), &unload, &unloadOptions{changeOptions: all, names: []string{}, all: true}},
		{append([]string{"disable", "a"}, allFlags...), &named, &namedChange{all, "a"}},
		{[]string{"enable", "a"}, &named, &namedChange{change, "a"}},
		{[]string{"reverse", "a"}, &named, &namedChange{change, "a"}},
		{[]string{"force", "a", "--yes"}, &force, &forceOptions{namedChange{change, "a"}, true}},
		{[]string{"status"}, &status, &statusOptions{interval: seconds(time.Second)}},
		{[]string{"status", "a", "--wait", "enabled", "--timeout", "2m", "--json"}, &status,
			&statusOptions{name: "a", interval: seconds(time.Second), wait: waitEnabled, timeout: seconds(2 * time.Minute), json: true}},
		{[]string{"status", "--watch", "--interval", "0.5"}, &status, &statusOptions{watch: true, interval: seconds(500 * time.Millisecond)}},
	} {
		t.Run(tt.args[0], func(t *testing.T) {
			a := &app{}
			root := newRoot(a)
			root.ResetCommands()
			root.AddCommand(
				newLoad(a, func(_ context.Context, _ *app, o loadOptions) error { load = o; return nil }),
				newUnload(a, func(_ context.Context, _ *app, o unloadOptions) error { unload = o; return nil }),
				newDisable(a, named0), newEnable(a, named0), newReverse(a, named0),
				newForce(a, func(_ context.Context, _ *app, o forceOptions) error { force = o; return nil }),
				newStatus(a, func(_ context.Context, _ *app, o statusOptions) error { status = o; return nil }),
			)
			root.SetArgs(tt.args)
			if err := root.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, tt.got, cmp.AllowUnexported(loadOptions{}, unloadOptions{}, namedChange{}, forceOptions{}, statusOptions{}, changeOptions{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWaitReached(t *testing.T) {
	state := func(phases ...livepatch.Phase) *livepatch.State {
		s := &livepatch.State{}
		for _, p := range phases {
			s.Patches = append(s.Patches, livepatch.Patch{Phase: p, Transition: p == livepatch.Enabling || p == livepatch.Disabling})
		}
		return s
	}
	for _, tt := range []struct {
		name                          string
		state                         *livepatch.State
		transition, enabled, disabled bool
	}{
		{"none", state(), true, false, true},
		{"enabled", state(livepatch.Enabled), true, true, false},
		{"enabling", state(livepatch.Enabling), false, false, false},
		{"disabling", state(livepatch.Disabling), false, false, false},
		{"disabled", state(livepatch.Disabled), true, false, true},
		{"one of two", state(livepatch.Enabled, livepatch.Enabling), false, false, false},
		{"enabled and left over", state(livepatch.Enabled, livepatch.Disabled), true, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for w, want := range map[waitFor]bool{waitTransition: tt.transition, waitEnabled: tt.enabled, waitDisabled: tt.disabled} {
				if got := w.reached(tt.state); got != want {
					t.Errorf("%s: %v, want %v", w, got, want)
				}
			}
		})
	}
}

func TestResultText(t *testing.T) {
	for _, tt := range []struct {
		name   string
		result livepatch.Result
		want   string
	}{
		{"done", livepatch.Result{Name: "livepatch_a", Outcome: livepatch.Done, State: "enabled", Replaced: []string{"livepatch_b"}},
			"livepatch_a: enabled\nlivepatch_b: replaced; its module does nothing any more, klpc unload livepatch_b removes it\n"},
		{"unchanged", livepatch.Result{Name: "livepatch_a", Outcome: livepatch.Unchanged, State: "not loaded"}, "livepatch_a: not loaded, nothing to do\n"},
		{"failed", livepatch.Result{Name: "livepatch_a", Outcome: livepatch.Failed}, ""},
		{"planned", livepatch.Result{Name: "livepatch_a", Outcome: livepatch.Planned,
			Checks: []livepatch.Finding{{Check: "release", Verdict: livepatch.OK, Detail: "built for 6.1"}},
			Steps:  []livepatch.Step{{Action: livepatch.ActionInsert, Detail: "a.ko"}, {Action: livepatch.ActionWait, Detail: "the transition"}}},
			"livepatch_a: nothing is done, this is a dry run\nchecks:\n  release  ok  built for 6.1\nsteps:\n  1. load a.ko\n  2. wait for the transition\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, resultText(&tt.result)); d != "" {
				t.Error(d)
			}
		})
	}
}

// What is installed stands below, that for other kernels apart.
func TestInstalledText(t *testing.T) {
	s := &status{State: &livepatch.State{Release: "6.12.1"}, Installed: []installed{
		newInstalled("6.1.0", store.Patch{Name: "livepatch_old"}),
		newInstalled("6.12.1", store.Patch{Name: "livepatch_a", Accepted: true, CVEs: []string{"CVE-2024-1", "CVE-2024-2"}}),
		newInstalled("6.12.1", store.Patch{Name: "livepatch_longer", Held: &store.Hold{Reason: "the machine restarted"}, Failed: &store.Failure{Reason: "no\nmore"}}),
	}}
	want := `
installed for this kernel
  livepatch_a       accepted  CVE-2024-1 CVE-2024-2
  livepatch_longer  held back: the machine restarted, failed: no

installed for other kernels
  6.1.0  livepatch_old  not accepted
`
	if d := cmp.Diff(want, s.installedText()); d != "" {
		t.Error(d)
	}
}

func TestIsFile(t *testing.T) {
	t.Chdir(t.TempDir())
	for arg, want := range map[string]bool{"livepatch-fix.ko": true, "fix.ko.xz": true, "./fix": true, "/x/fix": true, "livepatch_fix": false, "fix": false} {
		if got := isFile(arg); got != want {
			t.Errorf("%s: %v, want %v", arg, got, want)
		}
	}
}

// One of several keeps its place among all.
func TestStatusOfOne(t *testing.T) {
	state := func() *livepatch.State {
		s, err := livepatch.Read(fstest.MapFS{
			"proc/sys/kernel/osrelease":                   {Data: []byte("6.12.1\n")},
			"proc/modules":                                {Data: []byte("livepatch_b 1 1 - Live 0x0 (OEK)\nlivepatch_a 1 1 - Live 0x0 (OEK)\n")},
			"sys/kernel/livepatch/livepatch_a/enabled":    {Data: []byte("1\n")},
			"sys/kernel/livepatch/livepatch_a/transition": {Data: []byte("0\n")},
			"sys/kernel/livepatch/livepatch_b/enabled":    {Data: []byte("1\n")},
			"sys/kernel/livepatch/livepatch_b/transition": {Data: []byte("0\n")},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, want := range map[string][]string{"b": {"livepatch_b"}, "livepatch-b": {"livepatch_b"}, "": {"livepatch_a", "livepatch_b"}, "old": nil, "c": nil} {
		s := &status{State: state(), Installed: []installed{{Release: "6.1.0", Patch: store.Patch{Name: "livepatch_old"}}}}
		s.only(name)
		var got []string
		for _, p := range s.Patches {
			got = append(got, p.Name)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", name, d)
		}
		if err := s.missing(name); (err != nil) != (name == "c") {
			t.Errorf("%q: %v", name, err)
		}
		if name == "b" && !strings.Contains(s.text(), "order 2 of 2") {
			t.Error(s.text())
		}
	}
}
