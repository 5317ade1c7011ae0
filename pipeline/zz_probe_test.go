package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klpc/klpc/kbuild"
)

func TestProbe(t *testing.T) {
	names := strings.Fields(os.Getenv("PROBE_FILES"))
	var tree *kbuild.Tree
	var err error
	if d := os.Getenv("PROBE_DRY"); d != "" {
		tree, err = kbuild.OpenTree(os.Getenv("PROBE_TREE"), kbuild.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, _ := os.Open(d)
		db, err := kbuild.ParseDryRun(f, tree.Source, tree.Build)
		if err != nil {
			t.Fatal(err)
		}
		tree, err = kbuild.OpenTree(os.Getenv("PROBE_TREE"), kbuild.Options{DB: db})
	} else {
		tree, err = kbuild.OpenTree(os.Getenv("PROBE_TREE"), kbuild.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		text, err := os.ReadFile(filepath.Join(tree.Source, n))
		isNew := err != nil
		text = append(text, "\n# x\n"...)
		start := time.Now()
		s, err := selectUnits(t.Context(), tree, []touched{{path: n, content: &text, pinned: text, isNew: isNew}}, "/tmp/k/nf/depscache", filepath.Join(t.TempDir(), "w"))
		var u, c []string
		for _, x := range s.units {
			u = append(u, x.Object)
		}
		for _, x := range s.candidates {
			c = append(c, x.Object)
		}
		if len(c) > 4 {
			c = append(c[:4], "...")
		}
		d := ""
		for _, p := range s.problems {
			d += string(p.Kind) + ": " + p.Detail
		}
		t.Logf("%-50s %5.2fs units %v cand %v noeff %v notes %q problems %s err %v", n, time.Since(start).Seconds(), u, c, len(s.noEffect) > 0, s.notes, d, err)
	}
}
