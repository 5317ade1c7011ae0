package kbuild_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/klpc/klpc/kbuild"
)

// BenchmarkDepsOfTree indexes the .cmd files of a built tree, and reads the index.
func BenchmarkDepsOfTree(b *testing.B) {
	dir := os.Getenv("KLPC_SMALL_TREE")
	if dir == "" {
		b.Skip("KLPC_SMALL_TREE is not set: no built kernel tree to index")
	}
	tree, err := kbuild.OpenTree(dir, kbuild.Options{})
	if err != nil {
		b.Fatal(err)
	}
	cache := filepath.Join(b.TempDir(), "deps")
	run := func(cache string) func(*testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				x, err := tree.Deps(cache)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(x.Objects()), "objects")
			}
		}
	}
	b.Run("cold", run(""))
	if _, err := tree.Deps(cache); err != nil {
		b.Fatal(err)
	}
	b.Run("warm", run(cache))
}
