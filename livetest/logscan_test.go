package livetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSuspicious(t *testing.T) {
	tests := []struct {
		line  string
		fault bool
	}{
		{"[   12.481032] WARNING: CPU: 1 PID: 330 at fs/proc/cmdline.c:9 cmdline_proc_show+0x1c/0x30", true},
		{"[    5.1] ------------[ cut here ]------------", false},
		{"[    5.1] BUG: kernel NULL pointer dereference, address: 0000000000000000", true},
		{"[    5.1] BUG: unable to handle page fault for address: ffffffffc0000000", true},
		{"[    5.1] Oops: 0000 [#1] PREEMPT SMP NOPTI", true},
		{"[    5.1] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]", true},
		{"[    5.1] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]", true},
		{"[    5.1] Call Trace:", true},
		{"[    5.1] kernel BUG at fs/proc/cmdline.c:12!", true},
		{"[    5.1] invalid opcode: 0000 [#1] PREEMPT SMP", true},
		{"[    5.1] Unable to handle kernel paging request at virtual address 0000000000000000", true},
		{"[    5.1] Missing ENDBR: cmdline_proc_show+0x0/0x30", true},
		{"[    5.1] refcount_t: underflow; use-after-free.", true},
		{"[    5.1] UBSAN: array-index-out-of-bounds in fs/x.c:3:4", true},
		{"[    5.1] BUG: KASAN: slab-use-after-free in f+0x1/0x2", true},
		{"[   99.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]", true},
		{"[   99.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", true},
		{"[   99.1] rcu: INFO: rcu_preempt self-detected stall on CPU", true},
		{"[   99.1] INFO: task sh:1 blocked for more than 120 seconds.", true},
		{"[    5.1] veth: Unknown symbol foo (err -2)", true},
		{"[    5.1] veth: disagrees about version of symbol module_layout", true},
		{"[    5.1] veth: version magic '6.1.0 SMP mod_unload ' should be '6.12.0 SMP mod_unload '", true},
		{"[    5.1] module: x86/modules: Invalid relocation target, existing value is nonzero for type 1", true},
		{"[    5.1] lp: loading module not compiled with retpoline compiler.", true},
		{"[    5.1] livepatch: symbol 'f' not found in symbol table", true},
		{"[    5.1] livepatch: unresolvable ambiguity for symbol 'f' in object 'vmlinux'", true},
		{"[    5.1] livepatch: symbol position '3' for symbol 'f' in object 'vmlinux' not found", true},
		{"[    5.1] livepatch: failed to find location for function 'f'", true},
		{"[    5.1] livepatch: patch 'lp' failed for module 'veth', refusing to load module 'veth'", true},
		{"[    5.1] livepatch: failed to initialize patch 'lp' for module 'veth' (-22)", true},

		{"[    1.9] lp: loading out-of-tree module taints kernel.", false},
		{"[    1.9] lp: tainting kernel with TAINT_LIVEPATCH", false},
		{"[    1.9] lp: module verification failed: signature and/or required key missing - tainting kernel", false},
		{"[    1.9] livepatch: enabling patch 'lp'", false},
		{"[    1.9] livepatch: enabling patch 'not_found_error_fail'", false},
		{"[    1.9] livepatch: 'lp': starting patching transition", false},
		{"[    1.9] livepatch: 'lp': patching complete", false},
		{"[    1.9] livepatch: 'lp': unpatching complete", false},
		{"[    1.9] livepatch: signaling remaining tasks", false},
		{"[    1.9] livepatch: applying patch 'lp' to loading module 'veth'", false},
		{"[    1.9] tsc: Marking TSC unstable due to boot parameter", false},
	}
	for _, tt := range tests {
		got := len(faults([]LogLine{{Text: tt.line}}, []Step{{}})) > 0
		if got != tt.fault {
			t.Errorf("fault %v, want %v: %s", got, tt.fault, tt.line)
		}
	}
}

func TestTestLog(t *testing.T) {
	log := "[0.1] WARNING: while it boots\r\n" +
		"[1.0] klpc: step 0 begins\n[1.1] one\n[1.2] klpc: step 1 begins\n[1.3] BUG: two\n" +
		"[1.4] klpc: step 2 begins\n[1.5] BUG: three\n[1.6] klpc: step 99999999999999999999 begins"
	lines := testLog(log)
	want := []LogLine{
		{0, "[1.1] one"}, {1, "[1.3] BUG: two"}, {2, "[1.5] BUG: three"},
		{2, "[1.6] klpc: step 99999999999999999999 begins"},
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	got := faults(lines, []Step{{}, {MayWarn: true}, {}})
	if d := cmp.Diff([]LogLine{{2, "[1.5] BUG: three"}}, got); d != "" {
		t.Error(d)
	}
	if got := testLog("[0.1] WARNING: while it boots\n"); got != nil {
		t.Errorf("a log without marks gives %v", got)
	}
}
