package diff_test

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/klpc/klpc/diff"
)

// FuzzParse holds Parse, Apply and Pin to their contract: no panic, paths inside
// the tree, hunks that have the lines they claim and stand in order, edits that
// account for every line, pinning that only adds lines.
func FuzzParse(f *testing.F) {
	f.Add([]byte("--- a/x\n+++ b/x\n"+hunk), []byte("a\nb\nc\n"), 0)
	f.Add([]byte("From a Mon Jan 1\nSubject: x\n\ndiff --git a/x b/y\nrename from x\nrename to y\n--- a/x\n+++ b/y\n"+hunk+"-- \n2.39.5\n"), []byte("/*\n a\nb\nc"), 2)
	f.Add([]byte("diff --git \"a/\\303\\251\" b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n\\ No newline\n"), []byte(""), 0)
	f.Add([]byte("--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n #if A\n+(\n \"\\\n /*\n"), []byte("#if A\n\"\\\n/*\nR\"(\n#endif\n"), 1)
	f.Fuzz(func(t *testing.T, text, old []byte, fuzz int) {
		if _, err := diff.ParseSeries("p", text); err != nil && err.Error() == "" {
			t.Error("empty error")
		}
		p, err := diff.Parse("p", text)
		if err != nil {
			if p != nil || err.Error() == "" {
				t.Errorf("%v with error %q", p, err)
			}
			return
		}
		for _, file := range p.Files {
			checkFile(t, file)
			a, err := file.Apply(old, diff.Options{Fuzz: fuzz})
			if err != nil {
				continue
			}
			checkApplied(t, a, old)
		}
	})
}

func checkFile(t *testing.T, f *diff.File) {
	for _, path := range []string{f.Old, f.New} {
		if path != "" && !fs.ValidPath(path) {
			t.Errorf("path %q", path)
		}
	}
	end := 0
	for _, h := range f.Hunks {
		old, new := 0, 0
		for _, l := range h.Lines {
			if l.Kind != diff.Added {
				old++
			}
			if l.Kind != diff.Removed {
				new++
			}
		}
		if old != h.OldLines || new != h.NewLines || h.OldStart < end {
			t.Errorf("%d and %d lines after line %d in %+v", old, new, end, h)
		}
		end = h.OldStart + max(h.OldLines-1, 0)
	}
}

func checkApplied(t *testing.T, a *diff.Applied, old []byte) {
	oldLines, newLines := splitLines(old), splitLines(a.Content)
	i, j := 0, 0 // 0-based lines up to which old and new agree, but for edits
	keep := func(to int) {
		for ; i < to; i, j = i+1, j+1 {
			if !bytes.Equal(oldLines[i], newLines[j]) {
				t.Fatalf("unedited line %d is %q, was %q", j+1, newLines[j], oldLines[i])
			}
		}
	}
	for _, e := range a.Edits {
		keep(e.OldStart - 1)
		if j != e.NewStart-1 {
			t.Fatalf("edit %+v begins at new line %d", e, j+1)
		}
		i, j = i+e.OldLines, j+e.NewLines
	}
	keep(len(oldLines))
	if j != len(newLines) {
		t.Fatalf("%d lines, the edits explain %d", len(newLines), j)
	}
	pinned := splitLines(a.Pin())
	for _, line := range newLines {
		for len(pinned) > 0 && !bytes.Equal(pinned[0], line) {
			if !bytes.HasPrefix(pinned[0], []byte("#line ")) {
				t.Fatalf("pinning changed %q to %q", line, pinned[0])
			}
			pinned = pinned[1:]
		}
		if len(pinned) == 0 {
			t.Fatalf("pinning lost %q", line)
		}
		pinned = pinned[1:]
	}
}

func splitLines(text []byte) [][]byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if last := len(lines) - 1; len(lines[last]) == 0 {
		lines = lines[:last]
	}
	return lines
}
