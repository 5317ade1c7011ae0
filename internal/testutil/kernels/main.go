// Command kernels prepares the kernels that the booted tests work on and prints
// shell assignments that name them. It is part of `make test`.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/distro"
	"github.com/klpc/klpc/pipeline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cache, err := pipeline.CacheDir()
	if err != nil {
		return err
	}
	releases, err := newest(ctx)
	if err != nil {
		return err
	}
	var trees, boots []string
	for _, r := range releases {
		k, err := pipeline.OpenKernel(ctx, pipeline.KernelOptions{Kernel: "debian:" + r, Cache: cache},
			pipeline.Events{Step: func(s pipeline.StepEvent) { fmt.Fprintln(os.Stderr, r+": "+s.Text) }})
		if err != nil {
			return err
		}
		trees = append(trees, filepath.Dir(k.Tree.Build))
		boots = append(boots, filepath.Dir(k.BzImage))
		if r == releases[len(releases)-1] {
			fmt.Printf("export KLPC_TEST_BZIMAGE='%s'\n", k.BzImage)
			fmt.Printf("export KLPC_TEST_KO_DIR='%s'\n", k.Modules)
			fmt.Printf("export KLPC_TEST_SOURCE='%s'\n", k.Tree.Source)
		}
	}
	fmt.Printf("export KLPC_E2E_KERNELS='%s'\n", strings.Join(releases, " "))
	fmt.Printf("export KLPC_TEST_KERNELS='%s'\n", strings.Join(boots, ":"))
	fmt.Fprintln(os.Stderr, "trees:", strings.Join(trees, " "))
	return nil
}

// branches are the kernels that the tests cover: one without IBT, one with it.
var branches = []string{"6.1", "6.12"}

// newest returns the newest cloud kernel of each branch that apt offers.
func newest(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "pkgnames", "linux-image-").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-cache pkgnames: %w", err)
	}
	var releases []string
	for _, b := range branches {
		name := regexp.MustCompile(`^linux-image-(` + regexp.QuoteMeta(b) + `\.\S*-cloud-amd64)$`)
		var found []string
		for _, line := range strings.Split(string(bytes.TrimSpace(out)), "\n") {
			if m := name.FindStringSubmatch(line); m != nil {
				found = append(found, m[1])
			}
		}
		slices.SortFunc(found, distro.CompareVersions)
		if len(found) > 0 {
			releases = append(releases, found[len(found)-1])
		}
	}
	if len(releases) == 0 {
		return nil, fmt.Errorf("apt offers no cloud kernel of %s; run apt-get update", strings.Join(branches, " or "))
	}
	return releases, nil
}
