// Package e2e holds the tests that need real kernels: they build livepatches
// for stock Debian kernels, boot these very kernels in QEMU and look at what
// the livepatches do there.
//
// It holds nothing that others use. The patches are in testdata/patches; each
// begins with what it shows and how that is seen. Environment:
//
//	KLPC_TEST_BOOT=1          run these tests at all
//	KLPC_E2E_KERNELS          releases to test, separated by spaces; else the
//	                          newest cloud kernels of series 6.1 and 6.12 that apt offers
//	KLPC_E2E_TREE             a built kernel tree, for the tests of --kernel DIR
//	KLPC_E2E_ONLY             regular expression of scenarios, to try out some
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klpc/klpc/distro"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/target"
)

// TestMain gives all work folders a place of their own, to see that nothing
// stays there.
func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "klpc-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("TMPDIR", dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	left, err := filepath.Glob(filepath.Join(dir, "klpc-*"))
	if err != nil || len(left) > 0 {
		fmt.Fprintf(os.Stderr, "work folders are left: %q %v\n", left, err)
		return 1
	}
	return code
}

// needBoot skips a test unless kernels may be built for and booted.
func needBoot(t *testing.T) {
	t.Helper()
	if os.Getenv("KLPC_TEST_BOOT") != "1" {
		t.Skip("KLPC_TEST_BOOT is not 1: no livepatches are built for stock kernels, and no kernel is booted (make test does)")
	}
}

// series are the kernels that are tested: without and with IBT.
var series = []string{"6.1", "6.12"}

// releases returns what to test, by series.
func releases(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	if named := strings.Fields(os.Getenv("KLPC_E2E_KERNELS")); len(named) > 0 {
		for _, r := range named {
			found[seriesOf(r)] = r
		}
		return found
	}
	for _, s := range series {
		if r := newest(t, s); r != "" {
			found[s] = r
		}
	}
	return found
}

func seriesOf(release string) string {
	return strings.Join(strings.SplitN(release, ".", 3)[:2], ".")
}

// newest returns the newest cloud kernel of a series that apt can fetch, or "".
func newest(t *testing.T, series string) string {
	t.Helper()
	names, err := exec.Command("apt-cache", "pkgnames", "linux-headers-"+series+".").Output()
	if err != nil {
		t.Fatalf("apt-cache pkgnames: %v", err)
	}
	packages := slices.DeleteFunc(strings.Fields(string(names)), func(n string) bool { return !strings.HasSuffix(n, "-cloud-amd64") })
	if len(packages) == 0 {
		return ""
	}
	// Names are known of packages that are gone, too. Lines are "name | version | where".
	offers, err := exec.Command("apt-cache", append([]string{"madison"}, packages...)...).Output()
	if err != nil {
		t.Fatalf("apt-cache madison: %v", err)
	}
	best := ""
	for line := range strings.Lines(string(offers)) {
		name, _, _ := strings.Cut(line, "|")
		release := strings.TrimPrefix(strings.TrimSpace(name), "linux-headers-")
		if strings.Contains(line, "Packages") && (best == "" || distro.CompareVersions(release, best) > 0) {
			best = release
		}
	}
	return best
}

// kernel is a stock kernel that is ready to build for.
type kernel struct {
	*pipeline.Kernel
	series  string
	cache   string
	symbols *target.Symtab
}

// openKernel prepares a stock kernel, or skips the test if apt has none.
func openKernel(t *testing.T, series string) kernel {
	t.Helper()
	release := releases(t)[series]
	if release == "" {
		t.Skipf("apt offers no cloud kernel %s.*, and KLPC_E2E_KERNELS names none", series)
	}
	cache, err := pipeline.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := pipeline.OpenKernel(t.Context(), pipeline.KernelOptions{Kernel: "debian:" + release, Cache: cache}, pipeline.Events{})
	if err != nil {
		t.Fatal(err)
	}
	running, err := k.Target(nil)
	if err != nil {
		t.Fatal(err)
	}
	return kernel{Kernel: k, series: series, cache: cache, symbols: running.Symtab}
}

// patch returns the path of a patch: NAME.patch, or NAME-SERIES.patch where
// the sources of the kernels differ too much, or the folder NAME of a series.
func (k kernel) patch(t *testing.T, name string) string {
	t.Helper()
	for _, file := range []string{name + ".patch", name + "-" + k.series + ".patch", name + "/"} {
		path := filepath.Join("..", "testdata", "patches", file)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("no patch %s for %s", name, k.series)
	return ""
}

// hasSymbol tells whether the running kernel has a symbol.
func (k kernel) hasSymbol(name string) bool { return len(k.symbols.Named(name)) > 0 }

// only is the expression that selects scenarios.
func only(t *testing.T) *regexp.Regexp {
	t.Helper()
	re, err := regexp.Compile(os.Getenv("KLPC_E2E_ONLY"))
	if err != nil {
		t.Fatalf("KLPC_E2E_ONLY: %v", err)
	}
	return re
}

// TestStockKernel runs all that is tested on each stock kernel.
func TestStockKernel(t *testing.T) {
	needBoot(t)
	for _, s := range series {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			k := openKernel(t, s)
			t.Logf("kernel %s", k.Release)
			t.Run("livepatches", func(t *testing.T) { testLivepatches(t, k) })
			t.Run("refused", func(t *testing.T) { testRefused(t, k) })
			t.Run("layout", func(t *testing.T) { testLayout(t, k) })
		})
	}
}
