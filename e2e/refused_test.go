package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/pipeline"
)

// refusal is a patch that must not become a livepatch.
type refusal struct {
	patch string // name in testdata/patches/refused
	want  error
	kinds []elfdiff.ProblemKind // of the problems, in any order, each once
	says  []string              // parts of the problems' texts
}

var refusals = []refusal{
	{"init", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.InitCode}, []string{"chrdev_init", ".init.text", "KLP_PRE_PATCH_CALLBACK"}},
	{"data-value", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.DataChanged}, []string{"pty_reserve", "initial value", "callback"}},
	{"data-size", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.DataResized}, []string{"chrdevs", "4080 bytes instead of 2040", "shadow variable"}},
	{"const-table", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.DataChanged}, []string{"mem_fops"}},
	{"notrace", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.NoFtraceEntry}, []string{"ktime_get_boot_fast_ns", "no ftrace entry"}},
	{"noinstr", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.NoFtraceEntry}, []string{"handle_bug", "no ftrace entry"}},
	{"no-fentry", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.NoFtraceEntry}, []string{"profile_open", "no ftrace entry"}},
	{"assembly", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.NotKernelCode}, []string{"clear_page_64.S", "assembly"}},
	{"vdso", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.NotKernelCode}, []string{"vclock_gettime.c", "vDSO"}},
	{"realmode", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.NotKernelCode}, []string{"wakemain.c", "eal-mode"}},
	{"build-tool", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.NotKernelCode}, []string{"modpost.c", "build tool"}},
	{"objtool", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.NotKernelCode}, []string{"objtool.c", "tool"}},
	{"crc", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.CRCChanged}, []string{"mb_cache_entry_touch", "version of the exported symbol", "prototype"}},
	{"several", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{elfdiff.DataResized, elfdiff.DataChanged, pipeline.NotKernelCode}, []string{"chrdevs", "pty_reserve", "wakemain.c"}},
	{"module-key", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{codegen.ModuleKey}, []string{"nft_counters_enabled", "static_key_enabled()"}},
	{"runtime-shift", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{codegen.RuntimeConst}, []string{"__d_lookup", "d_hash_shift"}},
	{"layout-field", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.LayoutChanged}, []string{"fs/eventfd.c: struct eventfd_ctx", "field last is added at byte 48 (8 bytes)", `"u64 last;" (line `, "from 48 to 56 bytes", "eventfd_read", "klp_shadow_alloc", "--allow-layout-change 'struct eventfd_ctx'"}},
	{"layout-padding", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.LayoutChanged}, []string{"struct epitem", "field seen", "fits in padding between dying and pwqlist", "ep_clear_and_put"}},
	{"layout-enum", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.LayoutChanged}, []string{"enum {Enabled, ...}", "the value of Magic changes from 1 to 2", "keep the old values", "load_misc_binary"}},
	{"layout-bit", pipeline.ErrUnpatchable, []elfdiff.ProblemKind{pipeline.LayoutChanged}, []string{"MISC_FMT_OPEN_FILE", "changes from 0x10000000 to 0x1000000", "field flags"}},
	{"whitespace", pipeline.ErrNothing, nil, nil},
	{"documentation", pipeline.ErrNothing, nil, nil},
}

func testRefused(t *testing.T, k kernel) {
	pick := only(t)
	for _, r := range refusals {
		if r.patch == "runtime-shift" && k.series == "6.1" {
			continue // there are no runtime constants before 6.11
		}
		if pick.MatchString(r.patch) {
			t.Run(r.patch, func(t *testing.T) { r.test(t, k) })
		}
	}
}

func (r refusal) test(t *testing.T, k kernel) {
	dir := t.TempDir()
	report, err := pipeline.Build(t.Context(), k.Kernel, pipeline.BuildOptions{
		Patches: []string{k.patch(t, "refused/"+r.patch)}, Output: filepath.Join(dir, "livepatch-refused.ko"), Cache: k.cache,
	})
	if !errors.Is(err, r.want) {
		t.Fatalf("error %v, want %v%s", err, r.want, problems(report))
	}
	kinds := []elfdiff.ProblemKind{}
	for _, p := range report.Problems {
		kinds = append(kinds, p.Kind)
		if p.Where == "" || p.Detail == "" || p.Hint == "" {
			t.Errorf("a problem says too little: %+v", p)
		}
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	want := append([]elfdiff.ProblemKind{}, r.kinds...)
	slices.Sort(want)
	if d := cmp.Diff(want, kinds); d != "" {
		t.Errorf("kinds of problems: %s%s", d, problems(report))
	}
	text := problems(report)
	for _, s := range r.says {
		if !strings.Contains(text, s) {
			t.Errorf("the problems do not say %q:%s", s, text)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("something was written: %v %v", left, err)
	}
}
