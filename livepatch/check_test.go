package livepatch

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/inspect"
)

// Each check both ways: what it lets through, and what it finds, with the reason.
func TestCheck(t *testing.T) {
	const (
		release = CheckRelease
		tracefs = "sys/kernel/tracing/enabled_functions"
	)
	signed := func(m *Module) { m.Signed = true }
	files := func(nameText ...string) map[string]string { return map[string]string{nameText[0]: nameText[1]} }
	a := active("livepatch_a", "f", "g,2", "m:h")
	for _, tt := range []struct {
		name      string
		kernel    *fakeKernel
		module    *Module
		change    func(*Module)
		allowDrop bool
		check     string
		want      []string // "verdict: detail"
	}{
		{name: "release", kernel: &fakeKernel{}, check: release, want: []string{"ok: built for 6.12.0-test, which runs here"}},
		{name: "other release", kernel: &fakeKernel{}, check: release, change: func(m *Module) {
			m.Modinfo = []inspect.Tag{{Key: "vermagic", Value: "6.12.1-test SMP mod_unload "}}
		}, want: []string{"refused: built for 6.12.1-test, but 6.12.0-test runs here"}},
		{name: "no release", kernel: &fakeKernel{}, check: release, change: func(m *Module) { m.Modinfo = nil },
			want: []string{"refused: the module does not say which kernel it was built for (no vermagic in .modinfo)"}},
		{name: "no module to compare with", kernel: &fakeKernel{}, check: CheckVermagic,
			want: []string{"unknown: no module of this kernel to compare with in /lib/modules/6.12.0-test; the kernel compares"}},

		{name: "unsigned", kernel: &fakeKernel{}, check: CheckSignature, want: []string{"ok: it is not signed, which this kernel permits (it notes it as a taint)"}},
		{name: "unsigned and enforced", kernel: &fakeKernel{files: files("sys/module/module/parameters/sig_enforce", "Y\n")}, check: CheckSignature,
			want: []string{"refused: it is not signed, and module.sig_enforce is set"}},
		{name: "signed and enforced", kernel: &fakeKernel{files: files("sys/module/module/parameters/sig_enforce", "Y\n")}, change: signed, check: CheckSignature,
			want: []string{"ok: it is signed; the kernel decides whether it trusts the key, as module.sig_enforce is set"}},
		{name: "not enforced", kernel: &fakeKernel{files: files("sys/module/module/parameters/sig_enforce", "N\n")}, change: signed, check: CheckSignature,
			want: []string{"ok: it is signed"}},
		{name: "locked down", kernel: &fakeKernel{files: files("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")}, check: CheckSignature,
			want: []string{"refused: it is not signed, and the kernel is locked down (integrity)"}},
		{name: "not locked down", kernel: &fakeKernel{files: files("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")}, change: signed, check: CheckSignature,
			want: []string{"ok: it is signed"}},
		{name: "modules disabled", kernel: &fakeKernel{files: files("proc/sys/kernel/modules_disabled", "1\n")}, change: signed, check: CheckSignature,
			want: []string{"refused: loading modules has been switched off (kernel.modules_disabled)", "ok: it is signed"}},

		{name: "not loaded", kernel: &fakeKernel{}, check: CheckLoaded, want: []string{"ok: no livepatch of that name is loaded"}},
		{name: "loaded", kernel: &fakeKernel{patches: []*fakePatch{active("livepatch_new", "f")}}, check: CheckLoaded,
			want: []string{"ok: it is loaded already (enabled), as far as its name tells"}},
		{name: "this build is loaded", kernel: &fakeKernel{patches: []*fakePatch{active("livepatch_new", "f")}, files: files("sys/module/livepatch_new/srcversion", "ABC\n")},
			change: func(m *Module) { m.Modinfo = append(m.Modinfo, inspect.Tag{Key: "srcversion", Value: "ABC"}) }, check: CheckLoaded,
			want: []string{"ok: it is loaded already (enabled)"}},
		{name: "another build is loaded", kernel: &fakeKernel{patches: []*fakePatch{active("livepatch_new", "f")}, files: files("sys/module/livepatch_new/srcversion", "ABC\n")},
			change: func(m *Module) { m.Modinfo = append(m.Modinfo, inspect.Tag{Key: "srcversion", Value: "DEF"}) }, check: CheckLoaded,
			want: []string{"refused: another build of livepatch_new is loaded (enabled)"}},
		{name: "another build of a disabled one", kernel: &fakeKernel{patches: []*fakePatch{{name: "livepatch_new", gone: true}}, files: files("sys/module/livepatch_new/srcversion", "ABC\n")},
			change: func(m *Module) { m.Modinfo = append(m.Modinfo, inspect.Tag{Key: "srcversion", Value: "DEF"}) }, check: CheckLoaded,
			want: []string{"ok: its module is left over from before and does nothing"}},
		{name: "another build ID", kernel: &fakeKernel{patches: []*fakePatch{active("livepatch_new", "f")},
			files: files("sys/module/livepatch_new/notes/.note.gnu.build-id", "\x04\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd")},
			change: func(m *Module) { m.BuildID = "abce" }, check: CheckLoaded, want: []string{"refused: another build of livepatch_new is loaded (enabled)"}},

		{name: "replaces nothing", kernel: &fakeKernel{patches: []*fakePatch{a}}, check: CheckReplace, want: []string{"ok: it leaves the livepatches that are loaded in place"}},
		{name: "replaces all of it", kernel: &fakeKernel{patches: []*fakePatch{a}}, module: fakeModule("livepatch_new", true, "f", "g,2", "m:h", "i"), check: CheckReplace,
			want: []string{"ok: no function that is patched now loses its patch"}},
		{name: "drops one", kernel: &fakeKernel{patches: []*fakePatch{a}}, module: fakeModule("livepatch_new", true, "f", "g,2"), check: CheckReplace,
			want: []string{"refused: it replaces all livepatches that are loaded, and does not patch what they fix: h (m, by livepatch_a)"}},
		{name: "drops the second of a name", kernel: &fakeKernel{patches: []*fakePatch{a}}, module: fakeModule("livepatch_new", true, "f", "g,1", "m:h"), check: CheckReplace,
			want: []string{"refused: it replaces all livepatches that are loaded, and does not patch what they fix: g,2 (vmlinux, by livepatch_a)"}},
		{name: "drops in another object", kernel: &fakeKernel{patches: []*fakePatch{a}}, module: fakeModule("livepatch_new", true, "f", "g,2", "h"), check: CheckReplace,
			want: []string{"refused: it replaces all livepatches that are loaded, and does not patch what they fix: h (m, by livepatch_a)"}},
		{name: "may drop", kernel: &fakeKernel{patches: []*fakePatch{a}}, module: fakeModule("livepatch_new", true, "f", "g,2"), allowDrop: true, check: CheckReplace,
			want: []string{"warning: the fixes of these functions are lost: h (m, by livepatch_a)"}},
		{name: "drops what is disabled", kernel: &fakeKernel{patches: []*fakePatch{{name: "livepatch_a", gone: true}}}, module: fakeModule("livepatch_new", true, "f"), check: CheckReplace,
			want: []string{"ok: no function that is patched now loses its patch"}},
		{name: "does not say", kernel: &fakeKernel{patches: []*fakePatch{a}}, change: func(m *Module) { m.Replace = nil }, check: CheckReplace,
			want: []string{"unknown: the module does not show whether it replaces the livepatches that are loaded"}},

		{name: "needs nothing", kernel: &fakeKernel{}, check: CheckDepends, want: []string{"ok: it needs no other module"}},
		{name: "needs a module", kernel: &fakeKernel{modules: []string{"llc"}}, check: CheckDepends, change: func(m *Module) {
			m.Modinfo = append(m.Modinfo, inspect.Tag{Key: "depends", Value: "llc,stp"})
		}, want: []string{"refused: it needs modules that are not loaded: stp"}},
		{name: "has its modules", kernel: &fakeKernel{modules: []string{"llc", "stp"}}, check: CheckDepends, change: func(m *Module) {
			m.Modinfo = append(m.Modinfo, inspect.Tag{Key: "depends", Value: "llc,stp"})
		}, want: []string{"ok: loaded: llc, stp"}},
		{name: "waits", kernel: &fakeKernel{}, module: fakeModule("livepatch_new", false, "f", "m:g", "n:h"), check: CheckObjects,
			want: []string{"ok: not loaded, patched as soon as they are: m, n"}},
		{name: "does not wait", kernel: &fakeKernel{modules: []string{"m"}}, module: fakeModule("livepatch_new", false, "f", "m:g"), check: CheckObjects,
			want: []string{"ok: all that it patches is loaded"}},

		{name: "nobody traces", kernel: &fakeKernel{files: files(tracefs, "other (1) R I     \ttramp: 0x0 (x+0x0/0x1) ->y+0x0/0x1\n")}, check: CheckFtrace,
			want: []string{"ok: nobody else hooks into the functions (/sys/kernel/tracing/enabled_functions)"}},
		{name: "traced", kernel: &fakeKernel{files: files(tracefs, "f (1)            \ttramp: 0xffffffffc00e5000 (function_trace_call+0x0/0x150) ->function_trace_call+0x0/0x150\n")}, check: CheckFtrace,
			want: []string{"warning: f is traced (1 user): its calls are traced on, what happens inside is the new code"}},
		{name: "redirected", kernel: &fakeKernel{files: files(tracefs, "f (1) R I     \ttramp: 0xffffffffc00e5000 (kprobe_ftrace_handler+0x0/0x150) ->x+0x0/0x1\n")}, check: CheckFtrace,
			want: []string{"refused: something else redirects f (1 user R I): the kernel lets only one do that"}},
		{name: "redirected by a livepatch", kernel: &fakeKernel{patches: []*fakePatch{active("livepatch_a", "f")},
			files: files(tracefs, "f (1) R I     \ttramp: 0xffffffffc00e5000 (klp_ftrace_handler+0x0/0x150) ->x+0x0/0x1\n")}, check: CheckFtrace,
			want: []string{"ok: nobody else hooks into the functions (/sys/kernel/tracing/enabled_functions)"}},
		{name: "redirected by a livepatch, and traced", kernel: &fakeKernel{patches: []*fakePatch{active("livepatch_a", "f")},
			files: files(tracefs, "f (2) R I     \tarch_ftrace_ops_list_func+0x0/0x150\n")}, check: CheckFtrace,
			want: []string{"warning: f is traced (2 users R I): its calls are traced on, what happens inside is the new code"}},
		{name: "BPF", kernel: &fakeKernel{files: files(tracefs, "f (1)     D   \ttramp: ftrace_regs_caller+0x0/0x65 (call_direct_funcs+0x0/0x20) ->call_direct_funcs+0x0/0x20\n\tdirect-->bpf_trampoline_6442536467+0x0/0x1000\n")}, check: CheckFtrace,
			want: []string{"warning: a BPF trampoline is attached to f (1 user D): it goes on to run at calls, but sees the patched function's work"}},
		{name: "in a module", kernel: &fakeKernel{files: files(tracefs, "g [m] (1)            \ttramp: 0x0 (function_trace_call+0x0/0x150) ->x+0x0/0x1\ng (1)   \n")},
			module: fakeModule("livepatch_new", false, "m:g"), check: CheckFtrace,
			want: []string{"warning: g [m] is traced (1 user): its calls are traced on, what happens inside is the new code"}},

		{name: "no probe", kernel: &fakeKernel{files: files(kprobesList, "ffffffff812d1f60  k  other+0x0    [FTRACE]\n")}, check: CheckKprobes,
			want: []string{"ok: no probe is in the functions"}},
		{name: "probe on the entry", kernel: &fakeKernel{files: files(kprobesList, "ffffffff812d1f60  k  f+0x0    [FTRACE]\n")}, check: CheckKprobes,
			want: []string{"warning: a kprobe is on the entry of f: it is hit on, but with a post handler the kernel would refuse the livepatch"}},
		{name: "return probe behind ENDBR", kernel: &fakeKernel{files: files(kprobesList, "ffffffff812d1f64  r  f+0x4    [DISABLED][FTRACE]\n")}, check: CheckKprobes,
			want: []string{"warning: a kretprobe is on the entry of f: it is hit on, but with a post handler the kernel would refuse the livepatch"}},
		{name: "probe inside", kernel: &fakeKernel{files: files(kprobesList, "ffffffff812d1f80  k  f+0x20    [OPTIMIZED]\n")}, check: CheckKprobes,
			want: []string{"warning: a kprobe is inside of f, at +0x20: the patched function does not come by there, it is not hit any more"}},
		{name: "probe in a module", kernel: &fakeKernel{files: files(kprobesList, "ffffffffc01d1f80  k  g+0x20  m [DISABLED]\nffffffffc01d1f80  k  g+0x30    \n")},
			module: fakeModule("livepatch_new", false, "m:g"), check: CheckKprobes,
			want: []string{"warning: a kprobe is inside of g [m], at +0x20: the patched function does not come by there, it is not hit any more"}},

		{name: "plain tables", kernel: &fakeKernel{}, module: fakeModule("livepatch_new", false, "f", "m:g"), check: CheckModule, want: []string{"ok: 2 functions of 2 objects"}},
		{name: "tables at run time", kernel: &fakeKernel{}, change: func(m *Module) { m.Tables = inspect.AtRunTime }, check: CheckModule,
			want: []string{"unknown: it builds its tables as it is loaded: which functions it patches is not known before"}},
		{name: "problems", kernel: &fakeKernel{}, change: func(m *Module) { m.Problems = []string{"function f twice"} }, check: CheckModule, want: []string{"warning: function f twice"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.module
			if m == nil {
				m = fakeModule("livepatch_new", false, "f")
			}
			if tt.change != nil {
				tt.change(m)
			}
			state, err := Read(tt.kernel.FS())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range Check(tt.kernel.FS(), state, m, tt.allowDrop) {
				if f.Check == tt.check {
					got = append(got, fmt.Sprintf("%s: %s", f.Verdict, f.Detail))
				}
				if f.Verdict == Refused && f.Hint == "" {
					t.Errorf("%s: refused without a word on what to do", f.Check)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// All that forbids loading is said, not only the first.
func TestRefusal(t *testing.T) {
	k := &fakeKernel{files: map[string]string{"sys/module/module/parameters/sig_enforce": "Y\n"}}
	m := fakeModule("livepatch_new", false, "f")
	m.Modinfo = []inspect.Tag{{Key: "vermagic", Value: "6.1.0 SMP"}}
	_, err := Load(t.Context(), k, m, options())
	if err == nil || strings.Count(err.Error(), "livepatch_new: ") != 3 || !strings.Contains(err.Error(), "built for 6.1.0") || !strings.Contains(err.Error(), "sig_enforce") {
		t.Errorf("%v", err)
	}
}
