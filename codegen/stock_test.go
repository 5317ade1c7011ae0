package codegen_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/pipeline"
)

// TestStockKernel compiles a sample of a stock kernel's units and compares
// every function with the kernel's image: what was rebuilt must be what runs.
func TestStockKernel(t *testing.T) {
	releases := strings.Fields(os.Getenv("KLPC_E2E_KERNELS"))
	if len(releases) == 0 {
		t.Skip("KLPC_E2E_KERNELS names no prepared stock kernels")
	}
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			cache, err := pipeline.CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			k, err := pipeline.OpenKernel(t.Context(), pipeline.KernelOptions{Kernel: "debian:" + release, Cache: cache}, pipeline.Events{})
			if err != nil {
				t.Fatal(err)
			}
			target, err := k.Target(nil)
			if err != nil {
				t.Fatal(err)
			}
			checkSample(t, k, target)
		})
	}
}

func checkSample(t *testing.T, k *pipeline.Kernel, target codegen.Target) {
	var equal, absent int
	for _, u := range sample(k, 40) {
		out := filepath.Join(t.TempDir(), "unit.o")
		if _, err := k.Tree.Compile(t.Context(), kbuild.CompileJob{Unit: u, Out: out, Extra: []string{"-ffunction-sections", "-fdata-sections"}}); err != nil {
			t.Errorf("%s: %v", u.Source, err)
			continue
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		o, err := elfobj.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		v, err := elfdiff.NewView(o)
		if err != nil {
			t.Fatal(err)
		}
		e, a, differ := checkAgainstKernel(v, target)
		equal, absent = equal+e, absent+a
		for _, d := range differ {
			t.Errorf("%s: %v", u.Source, d)
		}
	}
	t.Logf("%d functions equal to the kernel's, %d not listed by the kernel", equal, absent)
	if equal < 200 {
		t.Errorf("only %d functions compared", equal)
	}
}

// sample draws units of vmlinux, the same ones every time.
func sample(k *pipeline.Kernel, n int) []kbuild.Unit {
	all := k.Tree.Units()
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []kbuild.Unit
	for _, u := range all {
		if u.Kind() == kbuild.C && u.Module() == "" && u.Special() == "" && len(out) < n {
			out = append(out, u)
		}
	}
	return out
}
