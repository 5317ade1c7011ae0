package livepatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// outcome is what the tests look at.
type outcome struct {
	Result Outcome
	State  string
	Calls  []string // what was done to the kernel, repeated calls once
	Err    string   // the error's first line
}

// try runs a command on a fake kernel.
func try(t *testing.T, k *fakeKernel, run func(context.Context, *fakeKernel) (*Result, error)) outcome {
	t.Helper()
	var got outcome
	synctest.Test(t, func(t *testing.T) {
		r, err := run(t.Context(), k)
		got = outcome{Result: r.Outcome, State: r.State}
		for i, c := range k.calls {
			if i == 0 || k.calls[i-1] != c {
				got.Calls = append(got.Calls, c)
			}
		}
		if err != nil {
			got.Err, _, _ = strings.Cut(err.Error(), "\n")
		}
		if (err != nil) != (r.Error != "") {
			t.Errorf("error %v, but the result says %q", err, r.Error)
		}
	})
	return got
}

func options() Options { return Options{Wait: time.Minute} }

func TestLoad(t *testing.T) {
	const name = "livepatch_a"
	load := func(o Options) func(context.Context, *fakeKernel) (*Result, error) {
		return func(ctx context.Context, k *fakeKernel) (*Result, error) {
			return Load(ctx, k, fakeModule(name, false, "f"), o)
		}
	}
	reversed := []string{"insert livepatch_a", "write 0 to livepatch_a/enabled", "remove livepatch_a"}
	for _, tt := range []struct {
		name   string
		kernel *fakeKernel
		opts   Options
		want   outcome
	}{
		{"completes", &fakeKernel{takes: 5 * time.Second}, options(),
			outcome{Done, "enabled", []string{"insert livepatch_a"}, ""}},
		{"dry run", &fakeKernel{}, Options{Wait: time.Minute, DryRun: true},
			outcome{Planned, "not loaded", nil, ""}},
		{"is enabled", &fakeKernel{patches: []*fakePatch{active(name, "f")}}, options(),
			outcome{Unchanged, "enabled", nil, ""}},
		{"is being enabled", &fakeKernel{patches: []*fakePatch{{name: name, enabled: true, changes: true, done: time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC)}}}, options(),
			outcome{Done, "enabled", nil, ""}},
		{"is being disabled", &fakeKernel{patches: []*fakePatch{{name: name, changes: true}}}, options(),
			outcome{Done, "enabled", []string{"write 1 to livepatch_a/enabled"}, ""}},
		{"left over", &fakeKernel{patches: []*fakePatch{{name: name, gone: true}}}, options(),
			outcome{Done, "enabled", []string{"remove livepatch_a", "insert livepatch_a"}, ""}},
		{"left over and in use for a while", &fakeKernel{refs: 5, patches: []*fakePatch{{name: name, gone: true}}}, options(),
			outcome{Done, "enabled", []string{"remove livepatch_a", "insert livepatch_a"}, ""}},
		{"left over after force", &fakeKernel{refs: 1000, patches: []*fakePatch{{name: name, gone: true}}}, options(),
			outcome{Failed, "disabled", []string{"remove livepatch_a"}, "remove the module livepatch_a: it is still in use; " +
				"after a forced transition it stays in memory until the next boot, where it does nothing"}},
		{"stalls", &fakeKernel{takes: -1}, options(),
			outcome{TakenBack, "not loaded", reversed, "livepatch_a: not complete after 1m; it was reversed and unloaded: the system is as before"}},
		{"stalls there and back", &fakeKernel{takes: -1, back: -1}, options(),
			outcome{Failed, "disabling", reversed[:2], "livepatch_a: not complete after 1m; taking it back: livepatch_a is still in transition back (disabling)"}},
		{"stalls and is left", &fakeKernel{takes: -1}, Options{Wait: time.Second, Leave: true},
			outcome{Failed, "enabling", reversed[:1], "livepatch_a: the transition was not complete after 1s; it goes on (enabling): " +
				"klpc status livepatch_a shows it, klpc reverse livepatch_a takes it back"}},
		{"somebody else's stalls", &fakeKernel{patches: []*fakePatch{{name: name, enabled: true, changes: true}}}, options(),
			outcome{Failed, "enabling", nil, "livepatch_a: the transition was not complete after 1m; it goes on (enabling): " +
				"klpc status livepatch_a shows it, klpc reverse livepatch_a takes it back"}},
		{"not followed", &fakeKernel{takes: -1}, Options{},
			outcome{Done, "enabling", reversed[:1], ""}},
		{"forced", &fakeKernel{takes: -1}, Options{Wait: time.Minute, ForceAfter: 10 * time.Second},
			outcome{Done, "enabled", []string{"insert livepatch_a", "write 1 to livepatch_a/force"}, ""}},
		{"forced later than waited for", &fakeKernel{takes: -1}, Options{Wait: time.Second, ForceAfter: 10 * time.Second},
			outcome{Done, "enabled", []string{"insert livepatch_a", "write 1 to livepatch_a/force"}, ""}},
		{"kernel is busy for a while", &fakeKernel{insert: []error{syscall.EBUSY, syscall.EBUSY}}, options(),
			outcome{Done, "enabled", []string{"insert livepatch_a"}, ""}},
		{"other transition", &fakeKernel{patches: []*fakePatch{{name: "livepatch_b", enabled: true, changes: true, done: time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC)}}}, options(),
			outcome{Done, "enabled", []string{"insert livepatch_a"}, ""}},
		{"other transition stalls", &fakeKernel{patches: []*fakePatch{{name: "livepatch_b", enabled: true, changes: true}}}, options(),
			outcome{Failed, "not loaded", nil, "the transition of livepatch_b is not complete after 1m, and the kernel does one at a time: it is not loaded"}},
		{"conflict in ftrace", &fakeKernel{insert: []error{syscall.EBUSY}, log: []string{"livepatch: failed to register ftrace handler for function 'f' (-16)"}}, options(),
			outcome{Failed, "not loaded", []string{"insert livepatch_a"}, "load livepatch_a: something else redirects one of the functions that it patches (EBUSY, device or resource busy)"}},
		{"refused", &fakeKernel{modules: []string{name}}, options(),
			outcome{Failed, "not loaded", nil, "livepatch_a: already loaded: a module livepatch_a is loaded that is no livepatch"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, try(t, tt.kernel, load(tt.opts))); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whoever else turns the transition round, klpc does not fight them.
func TestLoadTurned(t *testing.T) {
	k := &fakeKernel{takes: -1, back: -1}
	got := try(t, k, func(ctx context.Context, k *fakeKernel) (*Result, error) {
		go func() {
			time.Sleep(10 * time.Second)
			_ = k.Write(sysLivepatch+"/livepatch_a/enabled", "0")
		}()
		return Load(ctx, k, fakeModule("livepatch_a", false, "f"), options())
	})
	want := outcome{Failed, "disabling", []string{"insert livepatch_a", "write 0 to livepatch_a/enabled"},
		"livepatch_a: the transition was turned round by somebody else; it is now disabling"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestInterrupted(t *testing.T) {
	interrupt := func(k *fakeKernel, run func(context.Context) (*Result, error)) outcome {
		return try(t, k, func(ctx context.Context, _ *fakeKernel) (*Result, error) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			return run(ctx)
		})
	}
	k := &fakeKernel{takes: -1, back: time.Second}
	want := outcome{TakenBack, "not loaded", []string{"insert livepatch_a", "write 0 to livepatch_a/enabled", "remove livepatch_a"},
		"livepatch_a: interrupted; it was reversed and unloaded: the system is as before"}
	got := interrupt(k, func(ctx context.Context) (*Result, error) {
		return Load(ctx, k, fakeModule("livepatch_a", false, "f"), options())
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("load: %s", d)
	}
	k = &fakeKernel{takes: -1, back: time.Second, patches: []*fakePatch{active("livepatch_a", "f")}}
	want = outcome{TakenBack, "enabled", []string{"write 0 to livepatch_a/enabled", "write 1 to livepatch_a/enabled"},
		"livepatch_a: interrupted; it was reversed: livepatch_a is enabled, as before"}
	got = interrupt(k, func(ctx context.Context) (*Result, error) { return Unload(ctx, k, "livepatch_a", options()) })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("unload: %s", d)
	}
}

func TestCommands(t *testing.T) {
	type command func(context.Context, System, string, Options) (*Result, error)
	enabled := func() []*fakePatch { return []*fakePatch{active("livepatch_a", "f")} }
	changing := func(to bool) []*fakePatch {
		p := active("livepatch_a", "f")
		p.enabled, p.changes = to, true
		return []*fakePatch{p}
	}
	gone := func() []*fakePatch { return []*fakePatch{{name: "livepatch_a", gone: true}} }
	disable, enable, remove := "write 0 to livepatch_a/enabled", "write 1 to livepatch_a/enabled", "remove livepatch_a"
	const takesBack = "klpc status livepatch_a shows it, klpc reverse livepatch_a takes it back"
	for _, tt := range []struct {
		name   string
		run    command
		kernel *fakeKernel
		want   outcome
	}{
		{"unload", Unload, &fakeKernel{patches: enabled(), refs: 3}, outcome{Done, "not loaded", []string{disable, remove}, ""}},
		{"unload what is being enabled", Unload, &fakeKernel{patches: changing(true)}, outcome{Done, "not loaded", []string{disable, remove}, ""}},
		{"unload what is disabled", Unload, &fakeKernel{patches: gone()}, outcome{Done, "not loaded", []string{remove}, ""}},
		{"unload what is not loaded", Unload, &fakeKernel{}, outcome{Unchanged, "not loaded", nil, ""}},
		{"unload another module", Unload, &fakeKernel{modules: []string{"livepatch_a"}}, outcome{Failed, "not loaded", nil, "livepatch_a is a module, but no livepatch: no such livepatch is loaded"}},
		{"unload stalls", Unload, &fakeKernel{patches: enabled(), takes: -1},
			outcome{TakenBack, "enabled", []string{disable, enable}, "livepatch_a: not complete after 1m; it was reversed: livepatch_a is enabled, as before"}},
		{"unload what somebody else disables in vain", Unload, &fakeKernel{patches: changing(false), takes: -1},
			outcome{Failed, "disabling", nil, "livepatch_a: the transition was not complete after 1m; it goes on (disabling): " + takesBack}},
		{"disable", Disable, &fakeKernel{patches: enabled()}, outcome{Done, "disabled", []string{disable}, ""}},
		{"disable what is disabled", Disable, &fakeKernel{patches: gone()}, outcome{Unchanged, "disabled", nil, ""}},
		{"disable what is not loaded", Disable, &fakeKernel{}, outcome{Failed, "not loaded", nil, "livepatch_a: no such livepatch is loaded; none is"}},
		{"enable", Enable, &fakeKernel{patches: enabled()}, outcome{Unchanged, "enabled", nil, ""}},
		{"enable what is being disabled", Enable, &fakeKernel{patches: changing(false)}, outcome{Done, "enabled", []string{enable}, ""}},
		{"enable what is disabled", Enable, &fakeKernel{patches: gone()},
			outcome{Failed, "disabled", nil, "livepatch_a is disabled, and the kernel does not enable a disabled livepatch again (it says EINVAL)"}},
		{"reverse enabling", Reverse, &fakeKernel{patches: changing(true)}, outcome{Done, "disabled", []string{disable}, ""}},
		{"reverse disabling", Reverse, &fakeKernel{patches: changing(false)}, outcome{Done, "enabled", []string{enable}, ""}},
		{"reverse nothing", Reverse, &fakeKernel{patches: enabled()}, outcome{Failed, "enabled", nil, "livepatch_a is not in transition (enabled): there is nothing to reverse"}},
		{"reverse stalls", Reverse, &fakeKernel{patches: changing(true), back: -1},
			outcome{Failed, "disabling", []string{disable}, "livepatch_a: the transition was not complete after 1m; it goes on (disabling): " + takesBack}},
		{"enable stalls", Enable, &fakeKernel{patches: changing(false), back: -1},
			outcome{Failed, "enabling", []string{enable}, "livepatch_a: the transition was not complete after 1m; it goes on (enabling): " + takesBack}},
		{"enable what somebody else enables in vain", Enable, &fakeKernel{patches: changing(true), takes: -1},
			outcome{Failed, "enabling", nil, "livepatch_a: the transition was not complete after 1m; it goes on (enabling): " + takesBack}},
		{"force", Force, &fakeKernel{patches: changing(true)}, outcome{Done, "enabled", []string{"write 1 to livepatch_a/force"}, ""}},
		{"force nothing", Force, &fakeKernel{patches: enabled()}, outcome{Unchanged, "enabled", nil, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := try(t, tt.kernel, func(ctx context.Context, k *fakeKernel) (*Result, error) {
				return tt.run(ctx, k, "livepatch_a", options())
			})
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A transition that is turned round or forced is left as it is, whether klpc waits
// for it, waits no longer, or somebody else turns it again.
func TestLeft(t *testing.T) {
	disabling := func() *fakeKernel {
		return &fakeKernel{patches: []*fakePatch{{name: "livepatch_a", changes: true}}, back: -1, tasks: []fakeTask{{pid: 42, comm: "cat"}}}
	}
	enable := []string{"write 1 to livepatch_a/enabled"}
	turned := append(enable, "write 0 to livepatch_a/enabled")
	for _, tt := range []struct {
		name  string
		opts  Options
		again bool          // somebody else turns the transition after 3 s
		ends  time.Duration // when klpc is interrupted
		want  outcome
		tasks int // that block it
	}{
		{"not followed", Options{}, false, 0, outcome{Done, "enabling", enable, ""}, 0},
		{"not complete", options(), false, 0, outcome{Failed, "enabling", enable, "livepatch_a: the transition was not complete after 1m; it goes on (enabling): " +
			"klpc status livepatch_a shows it, klpc reverse livepatch_a takes it back"}, 1},
		{"interrupted", options(), false, 3 * time.Second, outcome{Failed, "enabling", enable, "livepatch_a: the transition was interrupted; it goes on (enabling): " +
			"klpc status livepatch_a shows it, klpc reverse livepatch_a takes it back"}, 1},
		{"turned", options(), true, 0, outcome{Failed, "disabling", turned, "livepatch_a: the transition was turned round by somebody else; it is now disabling"}, 0},
	} {
		for name, run := range map[string]func(context.Context, System, string, Options) (*Result, error){"enable": Enable, "reverse": Reverse} {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				var tasks int
				got := try(t, disabling(), func(ctx context.Context, k *fakeKernel) (*Result, error) {
					if tt.ends > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.ends)
						defer cancel()
					}
					if tt.again {
						go func() {
							time.Sleep(3 * time.Second)
							_ = k.Write(sysLivepatch+"/livepatch_a/enabled", "0")
						}()
					}
					r, err := run(ctx, k, "livepatch_a", tt.opts)
					tasks = len(r.Blocking)
					return r, err
				})
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Error(d)
				}
				if tasks != tt.tasks {
					t.Errorf("%d tasks block it, want %d", tasks, tt.tasks)
				}
			})
		}
	}
}

// A dry run names the steps of the real one, and does none of them.
func TestDryRun(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kernel func() *fakeKernel
		run    func(context.Context, *fakeKernel, Options) (*Result, error)
		want   []string
	}{
		{"load in place of what is left over", func() *fakeKernel { return &fakeKernel{patches: []*fakePatch{{name: "livepatch_a", gone: true}}} },
			func(ctx context.Context, k *fakeKernel, o Options) (*Result, error) {
				return Load(ctx, k, fakeModule("livepatch_a", false, "f"), o)
			},
			[]string{"remove the module livepatch_a, left over from a disabled livepatch", "load livepatch_a.ko",
				"wait for the transition of livepatch_a, at most 1m, then reverse it and unload it"}},
		{"unload", func() *fakeKernel { return &fakeKernel{patches: []*fakePatch{active("livepatch_a", "f")}} },
			func(ctx context.Context, k *fakeKernel, o Options) (*Result, error) { return Unload(ctx, k, "a", o) },
			[]string{"disable livepatch_a", "wait for the transition of livepatch_a, at most 1m, then reverse it, so that it stays enabled", "remove the module livepatch_a"}},
		{"enable", func() *fakeKernel { return &fakeKernel{patches: []*fakePatch{{name: "livepatch_a", changes: true}}} },
			func(ctx context.Context, k *fakeKernel, o Options) (*Result, error) { return Enable(ctx, k, "a", o) },
			[]string{"reverse livepatch_a, which is disabling", "wait for the transition of livepatch_a, at most 1m, then leave it as it is"}},
		{"reverse", func() *fakeKernel {
			return &fakeKernel{patches: []*fakePatch{{name: "livepatch_a", enabled: true, changes: true}}}
		},
			func(ctx context.Context, k *fakeKernel, o Options) (*Result, error) { return Reverse(ctx, k, "a", o) },
			[]string{"reverse livepatch_a, which is enabling", "wait for the transition of livepatch_a, at most 1m, then leave it as it is"}},
		{"force", func() *fakeKernel {
			return &fakeKernel{patches: []*fakePatch{{name: "livepatch_a", enabled: true, changes: true}}}
		},
			func(ctx context.Context, k *fakeKernel, o Options) (*Result, error) { return Force(ctx, k, "a", o) },
			[]string{"force livepatch_a: switch the tasks that have not", "wait for the transition of livepatch_a, at most 1m, then leave it as it is"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps := func(o Options) []string {
				var names []string
				k := tt.kernel()
				synctest.Test(t, func(t *testing.T) {
					r, err := tt.run(t.Context(), k, o)
					if err != nil {
						t.Fatal(err)
					}
					for _, s := range r.Steps {
						names = append(names, s.String())
					}
				})
				if o.DryRun && len(k.calls) > 0 {
					t.Errorf("a dry run did %q", k.calls)
				}
				return names
			}
			o := options()
			if d := cmp.Diff(tt.want, steps(o)); d != "" {
				t.Errorf("real run: %s", d)
			}
			o.DryRun = true
			if d := cmp.Diff(tt.want, steps(o)); d != "" {
				t.Errorf("dry run: %s", d)
			}
		})
	}
}

// TestTaskInModule: the kernel does not see a task in a function that a livepatch's
// function has jumped to. Its module stays as long.
func TestTaskInModule(t *testing.T) {
	for _, c := range []struct{ name, stack, want string }{
		{"in the module", "[<0>] pipe_read+0x10/0x20\n[<0>] fresh+0x1f3/0x3f0 [livepatch_a]\n[<0>] ksys_read+0x9b/0xf0\n", "cat (42) is in its function fresh"},
		{"with a build ID", "[<0>] fresh+0x1f3/0x3f0 [livepatch_a 0123abcd]\n", "cat (42) is in its function fresh"},
		{"in another module", "[<0>] pipe_read+0x10/0x20 [livepatch_ab]\n", ""},
		{"in the kernel", "[<0>] pipe_read+0x10/0x20\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &fakeKernel{patches: []*fakePatch{active("livepatch_a", "f")}, tasks: []fakeTask{{pid: 42, comm: "cat", stack: c.stack, switched: true}}}
			synctest.Test(t, func(t *testing.T) {
				_, err := Unload(t.Context(), k, "livepatch_a", options())
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("error %v lacks %q", err, c.want)
				}
				if removed := slices.Contains(k.calls, "remove livepatch_a"); removed != (c.want == "") {
					t.Errorf("calls %q", k.calls)
				}
			})
		})
	}
}

// A stall is reported while it lasts and in the result: which task, where.
func TestBlocking(t *testing.T) {
	k := &fakeKernel{takes: -1, tasks: []fakeTask{
		{pid: 1, comm: "init", switched: true},
		{pid: 42, comm: "cat", stack: "[<0>] schedule+0x10/0x20\n[<0>] f+0x1f3/0x3f0\n[<0>] vfs_read+0x9b/0xf0\n"},
	}}
	want := []Task{{PID: 42, TID: 42, Comm: "cat", State: "S (sleeping)", In: "f", Stack: []string{"schedule+0x10/0x20", "f+0x1f3/0x3f0", "vfs_read+0x9b/0xf0"}}}
	var told []Task
	var progress []string
	o := options()
	o.Events.Blocked = func(_ string, tasks []Task) { told = tasks }
	o.Events.Tasks = func(name string, t Tasks) { progress = append(progress, fmt.Sprint(name, ": ", t)) }
	synctest.Test(t, func(t *testing.T) {
		r, err := Load(t.Context(), k, fakeModule("livepatch_a", false, "f"), o)
		if err == nil || r.Outcome != TakenBack {
			t.Errorf("%v %v", r.Outcome, err)
		}
		if d := cmp.Diff(want, r.Blocking); d != "" {
			t.Errorf("result: %s", d)
		}
	})
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("meanwhile: %s", d)
	}
	if len(progress) < 30 || progress[0] != "livepatch_a: 1 of 2 tasks have switched" {
		t.Errorf("progress: %q", progress)
	}
}

func TestReplaced(t *testing.T) {
	k := &fakeKernel{patches: []*fakePatch{active("livepatch_a", "f"), active("livepatch_b", "g")}}
	synctest.Test(t, func(t *testing.T) {
		r, err := Load(t.Context(), k, fakeModule("livepatch_c", true, "f", "g", "h"), options())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"livepatch_a", "livepatch_b"}, r.Replaced); d != "" {
			t.Error(d)
		}
	})
}
