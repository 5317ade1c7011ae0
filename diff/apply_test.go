package diff_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klpc/klpc/diff"
)

// numbered is a file of the lines "1" to "n".
func numbered(n int) string { return lines(1, n) }

// lines are the lines from one number to another, both included.
func lines(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		b.WriteString(strconv.Itoa(i) + "\n")
	}
	return b.String()
}

func parseOne(t *testing.T, hunks string) *diff.File {
	t.Helper()
	text := hunks
	if !strings.HasPrefix(hunks, "diff ") && !strings.HasPrefix(hunks, "--- ") {
		text = "--- a/x\n+++ b/x\n" + hunks
	}
	p, err := diff.Parse("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Files[0]
}

func TestApply(t *testing.T) {
	const at5 = "@@ -3,5 +3,6 @@\n 3\n 4\n-5\n+five\n+V\n 6\n 7\n"
	for _, test := range []struct {
		name, hunks, old string
		options          diff.Options
		want             diff.Applied
		content          string
	}{
		{name: "exact", hunks: at5, old: numbered(9), content: lines(1, 4) + "five\nV\n" + lines(6, 9),
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{5, 1, 5, 2}}}},
		{name: "moved down", hunks: at5, old: "0\n0\n" + numbered(9), content: "0\n0\n" + lines(1, 4) + "five\nV\n" + lines(6, 9),
			want: diff.Applied{Offsets: []int{2}, Fuzz: []int{0}, Edits: []diff.Edit{{7, 1, 7, 2}}}},
		{name: "moved up", hunks: at5, old: lines(3, 9), content: "3\n4\nfive\nV\n" + lines(6, 9),
			want: diff.Applied{Offsets: []int{-2}, Fuzz: []int{0}, Edits: []diff.Edit{{3, 1, 3, 2}}}},
		{name: "exact place before a nearer context", hunks: at5, old: lines(1, 7) + lines(3, 7), content: lines(1, 4) + "five\nV\n6\n7\n" + lines(3, 7),
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{5, 1, 5, 2}}}},
		{name: "nearest of two", hunks: at5, old: "0\n" + lines(1, 7) + lines(3, 7), content: "0\n1\n2\n3\n4\nfive\nV\n6\n7\n" + lines(3, 7),
			want: diff.Applied{Offsets: []int{1}, Fuzz: []int{0}, Edits: []diff.Edit{{6, 1, 6, 2}}}},
		{name: "second hunk moves like the first", hunks: at5 + "@@ -13,3 +14,2 @@\n 13\n-14\n 15\n", old: "0\n" + numbered(12) + "13\n14\n15\n13\n14\n15\n",
			content: "0\n" + lines(1, 4) + "five\nV\n" + lines(6, 13) + "15\n13\n14\n15\n",
			want:    diff.Applied{Offsets: []int{1, 1}, Fuzz: []int{0, 0}, Edits: []diff.Edit{{6, 1, 6, 2}, {15, 1, 16, 0}}}},
		{name: "two edits in a hunk", hunks: "@@ -1,5 +1,5 @@\n-1\n 2\n+two\n 3\n-4\n+four\n 5\n", old: numbered(5), content: "2\ntwo\n3\nfour\n5\n",
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{1, 1, 1, 0}, {3, 0, 2, 1}, {4, 1, 4, 1}}}},
		{name: "edits of adjoining hunks are one", hunks: "@@ -2 +2 @@\n-2\n+two\n@@ -3 +3 @@\n-3\n+three\n",
			old: numbered(4), content: "1\ntwo\nthree\n4\n",
			want: diff.Applied{Offsets: []int{0, 0}, Fuzz: []int{0, 0}, Edits: []diff.Edit{{2, 2, 2, 2}}}},
		{name: "no newline to newline", hunks: "@@ -1,2 +1,3 @@\n 1\n-2\n\\ No newline at end of file\n+2\n+3\n", old: "1\n2", content: numbered(3),
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{2, 1, 2, 2}}}},
		{name: "newline to no newline", hunks: "@@ -1,2 +1,2 @@\n 1\n-2\n+2\n\\ No newline at end of file\n", old: "1\n2\n", content: "1\n2",
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{2, 1, 2, 1}}}},
		{name: "kept without newline", hunks: "@@ -1,2 +1 @@\n-1\n 2\n\\ No newline at end of file\n", old: "1\n2", content: "2",
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{1, 1, 1, 0}}}},
		{name: "CR LF", hunks: "@@ -1,2 +1 @@\r\n-1\r\n 2\r\n", old: "1\r\n2\r\n", content: "2\r\n",
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{1, 1, 1, 0}}}},
		{name: "new", hunks: "--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+1\n+2\n", old: "", content: "1\n2\n",
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{1, 0, 1, 2}}}},
		{name: "deleted", hunks: "--- a/x\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-1\n-2\n", old: "1\n2\n", content: "",
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{1, 2, 1, 0}}}},
		{name: "no hunks", hunks: "diff --git a/x b/y\nrename from x\nrename to y\n", old: "1\n2\n", content: "1\n2\n"},
		{name: "appended", hunks: "@@ -2,2 +2,3 @@\n 2\n 3\n+4\n", old: numbered(3), content: numbered(4),
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{4, 0, 4, 1}}}},
		{name: "appended, moved to the end", hunks: "@@ -1,2 +1,3 @@\n 2\n 3\n+4\n", old: numbered(3), content: numbered(4),
			want: diff.Applied{Offsets: []int{1}, Fuzz: []int{0}, Edits: []diff.Edit{{4, 0, 4, 1}}}},
		{name: "whole function as context", hunks: "@@ -2,8 +2,9 @@\n 2\n 3\n 4\n 5\n 6\n+6a\n 7\n 8\n 9\n", old: "0\n" + numbered(12),
			content: "0\n" + numbered(6) + "6a\n" + lines(7, 12),
			want:    diff.Applied{Offsets: []int{1}, Fuzz: []int{0}, Edits: []diff.Edit{{8, 0, 8, 1}}}},
		{name: "fuzz", hunks: at5, old: lines(1, 2) + "three\n" + lines(4, 6) + "seven\n8\n", options: diff.Options{Fuzz: 1},
			content: lines(1, 2) + "three\n4\nfive\nV\n6\nseven\n8\n",
			want:    diff.Applied{Offsets: []int{0}, Fuzz: []int{1}, Edits: []diff.Edit{{5, 1, 5, 2}}}},
		{name: "fuzz allowed, not needed", hunks: at5, old: numbered(9), options: diff.Options{Fuzz: 2}, content: lines(1, 4) + "five\nV\n" + lines(6, 9),
			want: diff.Applied{Offsets: []int{0}, Fuzz: []int{0}, Edits: []diff.Edit{{5, 1, 5, 2}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			old := []byte(test.old)
			got, err := parseOne(t, test.hunks).Apply(old, test.options)
			if err != nil {
				t.Fatal(err)
			}
			test.want.Content = []byte(test.content)
			if d := cmp.Diff(&test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if string(old) != test.old {
				t.Errorf("the old content was changed")
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	const at5 = "@@ -3,5 +3,6 @@\n 3\n 4\n-5\n+five\n+V\n 6\n 7\n"
	for _, test := range []struct {
		name, hunks, old string
		options          diff.Options
		want             string
	}{
		{name: "removed line differs", hunks: at5, old: lines(1, 4) + "FIVE\n" + lines(6, 9),
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 5 should be removed line "5", but is "FIVE"`},
		{name: "context line differs", hunks: at5, old: lines(1, 5) + " 6\n" + lines(7, 9),
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 6 should be context line "6", but is " 6"`},
		{name: "differs where it would have moved to", hunks: at5, old: "0\n0\n0\n" + lines(1, 4) + "FIVE\n" + lines(6, 9),
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 8 should be removed line "5", but is "FIVE"`},
		{name: "nothing like it", hunks: at5, old: "a\nb\nc\nd\n",
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 3 should be context line "3", but is "c"`},
		{name: "file too short", hunks: at5, old: lines(1, 5),
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 6 should be context line "6", but the file has only 5 lines`},
		{name: "file empty", hunks: at5, old: "",
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 1 should be context line "3", but the file has only 0 lines`},
		{name: "file lacks the newline", hunks: "@@ -1,2 +1 @@\n-1\n 2\n", old: "1\n2",
			want: `x: hunk 1 (patch line 3, for line 1): does not apply: line 2 should be context line "2", but is "2" without a newline`},
		{name: "file has the newline", hunks: "@@ -1,2 +1 @@\n-1\n 2\n\\ No newline at end of file\n", old: "1\n2\n",
			want: `x: hunk 1 (patch line 3, for line 1): does not apply: line 2 should be context line "2" without a newline, but is "2"`},
		{name: "end of the file, several places", hunks: "@@ -4,2 +4,1 @@\n a\n-b\n", old: "1\na\nb\n2\n3\na\nb\n4\n",
			want: "x: hunk 1 (patch line 3, for line 4): does not apply: its lines stand at line 2, but it can only stand at the end of the file"},
		{name: "equally near", hunks: "@@ -4,3 +4,2 @@\n a\n-b\n c\n", old: "a\nb\nc\n\n\n\na\nb\nc\n",
			want: "x: hunk 1 (patch line 3, for line 4): ambiguous: lines 1 and 7 match and are equally far from line 4"},
		{name: "already applied", hunks: at5, old: lines(1, 4) + "five\nV\n" + lines(6, 9),
			want: "x: hunk 1 (patch line 3, for line 3): already applied (reverse applies)"},
		{name: "removal already applied", hunks: "@@ -2,3 +2,2 @@\n 2\n-3\n 4\n", old: "1\n2\n4\n5\n",
			want: "x: hunk 1 (patch line 3, for line 2): already applied (reverse applies)"},
		{name: "already applied elsewhere", hunks: at5, old: "0\n" + lines(1, 4) + "five\nV\n" + lines(6, 9),
			want: "x: hunk 1 (patch line 3, for line 3): already applied (reverse applies)"},
		{name: "appending already applied", hunks: "@@ -2,2 +2,3 @@\n 2\n 3\n+4\n", old: numbered(4),
			want: "x: hunk 1 (patch line 3, for line 2): already applied (reverse applies)"},
		{name: "addition already applied", hunks: "--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+1\n+2\n", old: "1\n2\n", want: "x (patch line 1): already applied (reverse applies)"},
		{name: "addition of another file", hunks: "--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+1\n+2\n", old: "1\n", want: "x (patch line 1): new file exists already"},
		{name: "deletion leaves something", hunks: "--- a/x\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-1\n-2\n", old: numbered(4),
			want: "x (patch line 1): deleted file has 2 lines more than the patch removes"},
		{name: "beginning of the file", hunks: "@@ -1,2 +1,3 @@\n+0\n 1\n 2\n", old: "x\n1\n2\n",
			want: "x: hunk 1 (patch line 3, for line 1): does not apply: its lines stand at line 2, but it can only stand at the beginning of the file"},
		{name: "end of the file", hunks: "@@ -2,2 +2,3 @@\n 2\n 3\n+4\n", old: "1\n2\n3\nx\n",
			want: "x: hunk 1 (patch line 3, for line 2): does not apply: its lines stand at line 2, but it can only stand at the end of the file"},
		{name: "new end of the file", hunks: "@@ -2 +2 @@\n-2\n+2\n\\ No newline at end of file\n", old: numbered(3),
			want: "x: hunk 1 (patch line 3, for line 2): does not apply: its lines stand at line 2, but it can only stand at the end of the file"},
		{name: "before the hunk before", hunks: at5 + "@@ -12,3 +13,2 @@\n 1\n-2\n 3\n", old: numbered(12),
			want: "x: hunk 2 (patch line 11, for line 12): does not apply: its lines stand at line 1, before the end of the hunk before it"},
		{name: "no context, other place", hunks: "@@ -2 +2 @@\n-3\n+three\n", old: numbered(4),
			want: "x: hunk 1 (patch line 3, for line 2): does not apply: its lines stand at line 3, but without context it can only stand at line 2"},
		{name: "no context, nothing like it", hunks: "@@ -2 +2 @@\n-9\n+three\n", old: numbered(4),
			want: `x: hunk 1 (patch line 3, for line 2): does not apply: line 2 should be removed line "9", but is "2"`},
		{name: "addition without context", hunks: "@@ -2,0 +3 @@\n+x\n", old: numbered(4),
			want: "x: hunk 1 (patch line 3, for line 2): has no context, so that nothing shows that its place is right: make the diff with -U3"},
		{name: "addition without context, empty file", hunks: "@@ -2,0 +3 @@\n+x\n", old: "",
			want: "x: hunk 1 (patch line 3, for line 2): does not apply: it is for line 2, but the file has only 0 lines"},
		{name: "CR LF patch", hunks: "--- a/x\r\n+++ b/x\r\n@@ -1,2 +1 @@\r\n-1\r\n 2\r\n", old: "1\n2\n",
			want: "x: hunk 1 (patch line 3, for line 1): patch has CR LF line ends, but the file has LF"},
		{name: "CR LF file", hunks: "@@ -1,2 +1 @@\n-1\n 2\n", old: "1\r\n2\r\n",
			want: "x: hunk 1 (patch line 3, for line 1): patch has LF line ends, but the file has CR LF"},
		{name: "CR LF and another difference", hunks: "@@ -1,2 +1 @@\n-1\n 2\n", old: "1\r\n3\r\n",
			want: `x: hunk 1 (patch line 3, for line 1): does not apply: line 1 should be removed line "1", but is "1\r"`},
		{name: "fuzz is not on by itself", hunks: at5, old: lines(1, 2) + "three\n" + lines(4, 9),
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 3 should be context line "3", but is "three"`},
		{name: "more than fuzz allows", hunks: at5, old: lines(1, 3) + "four\n" + lines(5, 9), options: diff.Options{Fuzz: 1},
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 4 should be context line "4", but is "four"`},
		{name: "fuzz does not reach removed lines", hunks: at5, old: lines(1, 4) + "FIVE\n" + lines(6, 9), options: diff.Options{Fuzz: 9},
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 5 should be removed line "5", but is "FIVE"`},
		{name: "fuzz leaves some context to an addition", hunks: "@@ -1,2 +1,3 @@\n 1\n+x\n 2\n", old: "a\nb\n", options: diff.Options{Fuzz: 9},
			want: `x: hunk 1 (patch line 3, for line 1): does not apply: line 1 should be context line "1", but is "a"`},
		{name: "two hunks", hunks: at5 + "@@ -9,2 +10,1 @@\n 9\n-10\n", old: "a\nb\n",
			want: `x: hunk 1 (patch line 3, for line 3): does not apply: line 3 should be context line "3", but the file has only 2 lines` + "\n" +
				`x: hunk 2 (patch line 11, for line 9): does not apply: line 3 should be context line "9", but the file has only 2 lines`},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := parseOne(t, test.hunks).Apply([]byte(test.old), test.options)
			if err == nil {
				t.Fatalf("applied:\n%s", a.Content)
			}
			if d := cmp.Diff(test.want, err.Error()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestApplyTree(t *testing.T) {
	tree := fstest.MapFS{
		"fs/x.c":     {Data: []byte("a\nb\nc\n")},
		"fs/y.c":     {Data: []byte("a\nx\nc\n")},
		"fs/empty.c": {},
	}
	const newFile = "new file mode 100644\n--- /dev/null\n+++ b/"
	for _, test := range []struct{ name, text, want string }{
		{"modified and renamed", "--- a/fs/x.c\n+++ b/fs/x.c\n" + hunk + "diff --git a/fs/y.c b/fs/z.c\nrename from fs/y.c\nrename to fs/z.c\n",
			"fs/x.c: a B c|fs/z.c: a x c"},
		{"new", "diff --git a/n.c b/n.c\n" + newFile + "n.c\n@@ -0,0 +1 @@\n+x\n", "n.c: x"},
		{"plain diff of an empty file", "--- a/fs/empty.c\n+++ b/fs/empty.c\n@@ -0,0 +1 @@\n+x\n", "fs/empty.c: x"},
		{"deleted", "--- a/fs/x.c\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-a\n-b\n-c\n", "fs/x.c: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			results, err := mustParse(t, test.text).Apply(tree, diff.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range results {
				got = append(got, r.File.Path()+": "+strings.Join(strings.Fields(string(r.Applied.Content)), " "))
			}
			if d := cmp.Diff(test.want, strings.Join(got, "|")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	for _, test := range []struct{ name, text, want string }{
		{"all errors", "--- a/fs/none.c\n+++ b/fs/none.c\n" + hunk + "--- a/fs/y.c\n+++ b/fs/y.c\n" + hunk,
			"p: fs/none.c (patch line 1): no file fs/none.c in the tree\n" +
				`p: fs/y.c: hunk 1 (patch line 10, for line 1): does not apply: line 2 should be removed line "b", but is "x"`},
		{"rename onto a file", "diff --git a/fs/y.c b/fs/x.c\nrename from fs/y.c\nrename to fs/x.c\n", "p: fs/x.c (patch line 1): rename to fs/x.c, which exists already"},
		{"rename of nothing", "diff --git a/fs/n.c b/fs/m.c\nrename from fs/n.c\nrename to fs/m.c\n", "p: fs/m.c (patch line 1): no file fs/n.c in the tree"},
		{"new over an empty file", "diff --git a/fs/empty.c b/fs/empty.c\n" + newFile + "fs/empty.c\n@@ -0,0 +1 @@\n+x\n", "p: fs/empty.c (patch line 1): new file exists already"},
		{"directory", "--- a/fs\n+++ b/fs\n" + hunk, "p: fs (patch line 1): read fs: invalid argument"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := mustParse(t, test.text).Apply(tree, diff.Options{})
			if err == nil {
				t.Fatal("applied")
			}
			if d := cmp.Diff(test.want, err.Error()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			var one *diff.ApplyError
			if !errors.As(err, &one) {
				t.Errorf("no ApplyError in %T", err)
			}
		})
	}
}

func mustParse(t *testing.T, text string) *diff.Patch {
	t.Helper()
	p, err := diff.Parse("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
