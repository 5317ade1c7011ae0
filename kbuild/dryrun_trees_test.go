package kbuild

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDryRunOfTrees asks real trees for folders whose makefiles are as they
// were built: the answer must be what the tree has recorded. Neither the source
// nor the build may be touched.
func TestDryRunOfTrees(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			folders := []string{"fs/proc", "fs", "net/core", "drivers/net", "drivers/net/ipvlan", "arch/x86/kernel", "kernel/sched", "security/selinux", "lib"}
			before := listing(t, tree.Source, tree.Build)
			res, err := tree.DryRun(t.Context(), DryRunJob{Work: filepath.Join(t.TempDir(), "work"), Folders: folders, Deep: []string{"fs/ext4"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d units in %v, %v CPU; no rule for %v", len(res.Units), res.Wall, res.CPU, res.NoRule)
			if diff := cmp.Diff(before, listing(t, tree.Source, tree.Build)); diff != "" {
				t.Errorf("the tree has changed:\n%s", diff)
			}
			var want []Unit
			for _, f := range append(folders, "fs/ext4") {
				units, err := tree.UnitsIn(f, OneMakefile)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, units...)
			}
			slices.SortFunc(want, byObject)
			if diff := cmp.Diff(want, res.Units); diff != "" {
				t.Error(diff[:min(len(diff), 6000)])
			}
		})
	}
}
