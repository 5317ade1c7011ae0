package e2e

// Changes of headers on a built tree: what is said of their readers agrees with
// what the tree's .cmd files record, and what comes out works.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// headersTree is the tree for changes of headers: the small kernel if there is time,
// and else the smallest one.
func headersTree(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("KLPC_SMALL_TREE"); dir != "" && os.Getenv("KLPC_TEST_ALL") == "1" {
		return dir
	}
	return builtTree(t)
}

func TestHeaders(t *testing.T) {
	needBoot(t)
	t.Parallel()
	tree := headersTree(t)
	cache, err := pipeline.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	open := func(t *testing.T) *pipeline.Kernel {
		k, err := pipeline.OpenKernel(t.Context(), pipeline.KernelOptions{Kernel: tree, Cache: cache}, pipeline.Events{})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if seriesOf(open(t).Release) != "6.12" {
		t.Skipf("%s: the patches are for Linux 6.12", tree)
	}
	for _, test := range []struct {
		patch, header, check string
		functions            []string
		most                 int // units to be compiled
	}{
		{"header-one-user.patch", "fs/proc/fd.h", fd9, []string{"proc_fd_link", "seq_show", "tid_fd_revalidate"}, 1},
		{"header-dozens.patch", "include/linux/fs.h", dotEntry, []string{"proc_readdir_de", "proc_task_readdir"}, 40},
		{"header-wide.patch", "include/linux/sched.h", idleTasks, []string{"do_task_stat", "proc_pid_status"}, 10},
	} {
		t.Run(strings.TrimSuffix(test.patch, ".patch"), func(t *testing.T) {
			if !only(t).MatchString(test.patch) {
				t.Skip("KLPC_E2E_ONLY selects others")
			}
			k := open(t)
			out := filepath.Join(t.TempDir(), "livepatch-headers.ko")
			r, err := pipeline.Build(t.Context(), k, pipeline.BuildOptions{Patches: []string{filepath.Join("..", "testdata", "patches", test.patch)},
				Output: out, Name: "headers", Cache: cache, CacheSize: pipeline.DefaultCacheSize})
			if err != nil {
				t.Fatalf("%v%s", err, problems(r))
			}
			got := r.Readers
			t.Logf("%s: %d units read it, %d preprocess differently, %d functions changed; %d were dropped by text, %d are unreachable",
				test.header, got.Read, got.Preprocessed, got.Functions, got.DroppedByText, got.Unreachable)
			units, err := k.Tree.Readers(test.header, "")
			if err != nil {
				t.Fatal(err)
			}
			ordinary := 0
			for _, u := range units {
				if u.Special() == "" {
					ordinary++
				}
			}
			if got.Read != ordinary {
				t.Errorf("%d units read %s by the .cmd files", ordinary, test.header)
			}
			if compiled := got.Preprocessed - got.Unreachable; compiled < 1 || compiled > test.most || got.DroppedByText+got.Preprocessed > got.Read {
				t.Errorf("%d units were compiled, want at most %d", compiled, test.most)
			}
			names := map[string]bool{}
			for _, o := range r.Objects {
				for _, f := range o.Functions {
					names[f.Name] = true
				}
			}
			for _, f := range test.functions {
				if !names[f] {
					t.Errorf("the report does not name %s", f)
				}
			}
			testOnTree(t, tree, out, test.check)
		})
	}
}

// testOnTree is klpc test with a tree's own kernel.
func testOnTree(t *testing.T, tree, lp, check string) {
	find, err := livetest.FindModuleIn(tree)
	if err != nil {
		t.Fatal(err)
	}
	guest := livetest.Guest{Kernel: livetest.Kernel{BzImage: filepath.Join(tree, "arch/x86/boot/bzImage"), FindModule: find}, Accel: vm.TCG}
	report, err := livetest.Run(t.Context(), livetest.Options{Guest: guest, Livepatch: lp, Checks: []string{check}})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK {
		t.Error(strings.Join(report.Problems, "\n"))
	}
}
