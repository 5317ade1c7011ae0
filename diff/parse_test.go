package diff_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klpc/klpc/diff"
)

// hunk is a hunk that is right, for patches whose point is elsewhere.
const hunk = "@@ -1,3 +1,3 @@ f\n a\n-b\n+B\n c\n"

func modify(name string) *diff.File {
	return &diff.File{Old: name, New: name, Line: 1, Hunks: []diff.Hunk{theHunk(3)}}
}

func theHunk(line int) diff.Hunk {
	return diff.Hunk{
		Line: line, OldStart: 1, OldLines: 3, NewStart: 1, NewLines: 3, Section: "f",
		Lines: []diff.Line{{Kind: ' ', Text: "a"}, {Kind: '-', Text: "b"}, {Kind: '+', Text: "B"}, {Kind: ' ', Text: "c"}},
	}
}

func TestParse(t *testing.T) {
	addLine := []diff.Hunk{{Line: 6, OldStart: 0, OldLines: 0, NewStart: 1, NewLines: 1, Lines: []diff.Line{{Kind: '+', Text: "x"}}}}
	at := func(line, hunkLine int, f *diff.File) *diff.File {
		f.Line = line
		for i := range f.Hunks {
			f.Hunks[i].Line = hunkLine
		}
		return f
	}
	for _, test := range []struct {
		name, text string
		want       diff.Patch
	}{
		{"plain", "--- a/fs/x.c\n+++ b/fs/x.c\n" + hunk, diff.Patch{Files: []*diff.File{modify("fs/x.c")}}},
		{"timestamps and other roots", "--- linux-6.1.orig/fs/x.c\t2024-01-02 03:04:05.678901234 +0100\n" +
			"+++ linux-6.1/fs/x.c\t2024-01-02 03:04:06.000000000 +0100\n" + hunk,
			diff.Patch{Files: []*diff.File{modify("fs/x.c")}}},
		{"root is a dot", "--- ./fs/x.c\n+++ ./fs/x.c\n" + hunk, diff.Patch{Files: []*diff.File{modify("fs/x.c")}}},
		{"byte order mark", "\ufeff--- a/fs/x.c\n+++ b/fs/x.c\n" + hunk, diff.Patch{Files: []*diff.File{modify("fs/x.c")}}},
		{"quoted name", "--- \"a/fs/\\303\\251\\\\\\\"x.c\"\n+++ \"b/fs/\\303\\251\\\\\\\"x.c\"\t2024-01-02 03:04:05 +0000\n" + hunk,
			diff.Patch{Files: []*diff.File{modify("fs/é\\\"x.c")}}},
		{"mail", "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: A <a@example.org>\n" +
			"Subject: [PATCH v2 1/2] [stable] fs: a\n =?UTF-8?q?long=C3=A9?= title\n\nText.\n---\n fs/x.c | 2 +-\n\n" +
			"diff --git a/fs/x.c b/fs/x.c\nindex 0123456..789abcd 100644\n--- a/fs/x.c\n+++ b/fs/x.c\n" + hunk + "-- \n2.39.5\n\n",
			diff.Patch{Title: "fs: a longé title", Files: []*diff.File{at(10, 14, &diff.File{Old: "fs/x.c", New: "fs/x.c",
				OldMode: "100644", NewMode: "100644", Hunks: modify("").Hunks})}}},
		{"signature without its space", "--- a/fs/x.c\n+++ b/fs/x.c\n" + hunk + "--\n2.39.5\n", diff.Patch{Files: []*diff.File{modify("fs/x.c")}}},
		{"commit", "commit 0123456789\nAuthor: A <a@example.org>\nDate:   Mon\n\n    fs: title\n\n    text\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n" + hunk,
			diff.Patch{Title: "fs: title", Files: []*diff.File{at(9, 12, modify("x"))}}},
		{"first line", "\nA fix.\nMore.\nIndex: b/x\n====\n--- a/x\n+++ b/x\n" + hunk,
			diff.Patch{Title: "A fix.", Files: []*diff.File{at(6, 8, modify("x"))}}},
		{"two files", "diff -u a/x b/x\n--- a/x\n+++ b/x\n" + hunk + "\nIndex: y\n===\ndiff -ru a/y b/y\n--- a/y\n+++ b/y\n" + hunk,
			diff.Patch{Files: []*diff.File{at(2, 4, modify("x")), at(13, 15, modify("y"))}}},
		{"two mails in one", "--- a/x\n+++ b/x\n" + hunk + "-- \n2.39.5\n\nFrom a@example.org Mon Sep 17 00:00:00 2001\nSubject: two\n\n+text\n--- a/y\n+++ b/y\n" + hunk,
			diff.Patch{Title: "", Files: []*diff.File{modify("x"), at(15, 17, modify("y"))}}},
		{"new", "diff --git a/x b/x\nnew file mode 100755\nindex 0..1\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n",
			diff.Patch{Files: []*diff.File{{New: "x", Op: diff.Add, Line: 1, NewMode: "100755", Hunks: addLine}}}},
		{"new and empty", "diff --git a/a b/c b/a b/c\nnew file mode 100644\nindex 0..1\n",
			diff.Patch{Files: []*diff.File{{New: "a b/c", Op: diff.Add, Line: 1, NewMode: "100644"}}}},
		{"new by timestamp", "x\n\n\n--- a/x\t1970-01-01 01:00:00.000000000 +0100\n+++ b/x\t2024-01-02 03:04:05 +0100\n@@ -0,0 +1 @@\n+x\n",
			diff.Patch{Title: "x", Files: []*diff.File{{New: "x", Op: diff.Add, Line: 4, Hunks: addLine}}}},
		{"new by its hunk", "x\n\n\n--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+x\n",
			diff.Patch{Title: "x", Files: []*diff.File{{New: "x", Op: diff.Add, Line: 4, Hunks: addLine}}}},
		{"was empty", "diff --git a/x b/x\nindex 0..1 100644\n--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+x\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Line: 1, OldMode: "100644", NewMode: "100644",
				Hunks: []diff.Hunk{{Line: 5, NewStart: 1, NewLines: 1, Lines: []diff.Line{{Kind: '+', Text: "x"}}}}}}}},
		{"deleted", "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
			diff.Patch{Files: []*diff.File{{Old: "x", Op: diff.Delete, Line: 1, Hunks: []diff.Hunk{{Line: 3, OldStart: 1, OldLines: 1,
				Lines: []diff.Line{{Kind: '-', Text: "x"}}}}}}}},
		{"renamed", "diff --git a/x y b/z\nsimilarity index 100%\nrename from x y\nrename to z\n",
			diff.Patch{Files: []*diff.File{{Old: "x y", New: "z", Op: diff.Rename, Line: 1}}}},
		{"copied, quoted", "diff --git \"a/\\303\\251\" \"b/z\"\nsimilarity index 100%\ncopy from \"\\303\\251\"\ncopy to z\n",
			diff.Patch{Files: []*diff.File{{Old: "é", New: "z", Op: diff.Copy, Line: 1}}}},
		{"mode", "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Op: diff.ModeOnly, Line: 1, OldMode: "100644", NewMode: "100755"}}}},
		{"no newline", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Line: 1, Hunks: []diff.Hunk{{Line: 3, OldStart: 1, OldLines: 1, NewStart: 1, NewLines: 1,
				Lines: []diff.Line{{Kind: '-', Text: "a", NoEOL: true}, {Kind: '+', Text: "b", NoEOL: true}}}}}}}},
		{"CR LF", "--- a/x\r\n+++ b/x\r\n@@ -1,2 +1 @@\r\n-a\r\n b\r\n\\ No newline\r\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Line: 1, Hunks: []diff.Hunk{{Line: 3, OldStart: 1, OldLines: 2, NewStart: 1, NewLines: 1,
				Lines: []diff.Line{{Kind: '-', Text: "a\r"}, {Kind: ' ', Text: "b", NoEOL: true}}}}}}}},
		{"blank context line", "--- a/x\n+++ b/x\n@@ -1,3 +1,2 @@\n\n-b\n\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Line: 1, Hunks: []diff.Hunk{{Line: 3, OldStart: 1, OldLines: 3, NewStart: 1, NewLines: 2,
				Lines: []diff.Line{{Kind: ' '}, {Kind: '-', Text: "b"}, {Kind: ' '}}}}}}}},
		// what go-diff alone would misread
		{"lines like headers", "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- a\n---\n+++ b\n+-- \n@@ -9 +9 @@\n-- \n+2.39.5\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Line: 1, Hunks: []diff.Hunk{
				{Line: 3, OldStart: 1, OldLines: 2, NewStart: 1, NewLines: 2,
					Lines: []diff.Line{{Kind: '-', Text: "-- a"}, {Kind: '-', Text: "--"}, {Kind: '+', Text: "++ b"}, {Kind: '+', Text: "-- "}}},
				{Line: 8, OldStart: 9, OldLines: 1, NewStart: 9, NewLines: 1, Lines: []diff.Line{{Kind: '-', Text: "- "}, {Kind: '+', Text: "2.39.5"}}},
			}}}}},
		{"header-like lines before the next hunk", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a\n+++ b\n@@ -9 +9 @@\n-x\n+y\n",
			diff.Patch{Files: []*diff.File{{Old: "x", New: "x", Line: 1, Hunks: []diff.Hunk{
				{Line: 3, OldStart: 1, OldLines: 1, NewStart: 1, NewLines: 1, Lines: []diff.Line{{Kind: '-', Text: "-- a"}, {Kind: '+', Text: "++ b"}}},
				{Line: 6, OldStart: 9, OldLines: 1, NewStart: 9, NewLines: 1, Lines: []diff.Line{{Kind: '-', Text: "x"}, {Kind: '+', Text: "y"}}},
			}}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := diff.Parse("p", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			test.want.Name = "p"
			if d := cmp.Diff(&test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "--- a/x\n+++ b/x\n"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "p: empty patch"},
		{"blank", " \n\t\r\n", "p: empty patch"},
		{"prose", "Dear all,\nplease apply.\n", "p: not a patch: no file header found"},
		{"context diff", "*** a/x\n--- b/x\n***************\n*** 1,2 ****\n", "p: not a patch: no file header found; this is a context diff: make it with diff -u"},
		{"UTF-16", "\xff\xfed\x00i\x00", "p: not a patch: UTF-16 text; save it as UTF-8"},

		{"fewer lines", head + "@@ -1,4 +1,3 @@\n a\n-b\n c\n",
			"p:3: x: hunk 1: fewer lines than its header says: header has 4 old and 3 new, the hunk 3 and 2"},
		{"fewer lines before a hunk", head + "@@ -1,4 +1,3 @@\n a\n-b\n c\n@@ -9 +8 @@\n-a\n+b\n",
			"p:3: x: hunk 1: fewer lines than its header says: header has 4 old and 3 new, the hunk 3 and 2"},
		{"fewer lines before a file", head + "@@ -1,4 +1,4 @@\n a\n-b\n+c\n d\n--- a/y\n+++ b/y\n" + hunk,
			"p:3: x: hunk 1: fewer lines than its header says: header has 4 old and 4 new, the hunk 3 and 3"},
		{"fewer lines before a git header", head + "@@ -1,4 +1,3 @@\n a\n-b\n c\ndiff --git a/y b/y\n--- a/y\n+++ b/y\n" + hunk,
			"p:3: x: hunk 1: fewer lines than its header says: header has 4 old and 3 new, the hunk 3 and 2"},
		{"fewer lines before the signature", head + "@@ -1,4 +1,2 @@\n a\n-b\n c\n-- \n2.39.5\n\n",
			"p:3: x: hunk 1: fewer lines than its header says: header has 4 old and 2 new, the hunk 3 and 2"},
		{"fewer lines in the second hunk", head + hunk + "@@ -9,2 +9 @@\n-a\n",
			"p:8: x: hunk 2: fewer lines than its header says: header has 2 old and 1 new, the hunk 1 and 0"},
		{"no lines", head + "@@ -1,2 +1,2 @@\n", "p:3: x: hunk 1: fewer lines than its header says: header has 2 old and 2 new, the hunk 0 and 0"},
		{"more lines", head + "@@ -1,2 +1,1 @@\n a\n-b\n c\n",
			"p:3: x: hunk 1: more lines than its header says: header has 2 old and 1 new, the hunk 3 and 2"},
		{"more removed lines", head + "@@ -1,2 +1,2 @@\n a\n-b\n-c\n d\n",
			"p:3: x: hunk 1: more lines than its header says: header has 2 old and 2 new, the hunk 4 and 2"},
		{"more lines after a blank", head + "@@ -1,1 +1,2 @@\n a\n+b\n\n+c\n",
			`p:7: x: hunk 1: more lines than its header says, or junk after it: "+c"`},
		{"removed line like a signature, miscounted", head + "@@ -1,2 +1,1 @@\n a\n-b\n-- \n c\n",
			"p:3: x: hunk 1: more lines than its header says: header has 2 old and 1 new, the hunk 4 and 2"},
		{"hunk in the signature", head + hunk + "-- \ntext\n+more\n", `p:10: x: hunk 1: lines of a hunk in the mail signature: "+more"`},
		{"hunk after the signature", head + hunk + "-- \n2.39.5\n@@ -9 +9 @@\n-a\n+b\n",
			`p:10: x: hunk 1: lines of a hunk in the mail signature: "@@ -9 +9 @@"`},
		{"signature without text", head + hunk + "-- \n",
			"p:3: x: hunk 1: more lines than its header says: header has 3 old and 3 new, the hunk 4 and 3"},

		{"lost space", head + "@@ -1,3 +1,2 @@\n a\n-b\nc\n", `p:6: x: hunk 1: line has lost its leading space: "c"`},
		{"lost space at first", head + "@@ -1,3 +1,2 @@\na\n-b\n c\n", `p:4: x: hunk 1: line has lost its leading space: "a"`},
		{"lost tab", head + "@@ -1,3 +1,2 @@\n a\n-b\n\tc\n", `p:6: x: hunk 1: line has lost its leading space: "\tc"`},
		{"junk", head + hunk + "junk\n", `p:8: x: hunk 1: junk after it: "junk"`},
		{"junk after a blank line", head + hunk + "\njunk\n", `p:9: x: hunk 1: junk after it: "junk"`},
		{"junk between files", head + hunk + "junk\n--- a/y\n+++ b/y\n" + hunk, `p:8: x: hunk 1: junk after it: "junk"`},
		{"commit text of git log", head + hunk + "\ncommit 0123456789\n", `p:9: x: hunk 1: junk after it: "commit 0123456789"`},
		{"hunk after a blank line", head + hunk + "\n@@ -9 +9 @@\n-a\n+b\n", "p:9: hunk without a file header"},
		{"hunk alone", hunk, "p:1: hunk without a file header"},
		{"malformed hunk header", head + "@@ -1,3 +1,3\n a\n", `p:3: x: hunk 1: malformed header: "@@ -1,3 +1,3"`},
		{"malformed second hunk header", head + hunk + "@@ -a +b @@\n a\n", `p:8: x: hunk 2: malformed header: "@@ -a +b @@"`},
		{"number too large", head + "@@ -9999999999 +1 @@\n-a\n", `p:3: x: hunk 1: malformed header: "@@ -9999999999 +1 @@"`},
		{"line 0", head + "@@ -0,1 +1 @@\n-a\n+b\n", `p:3: x: hunk 1: malformed header: line 0 has no lines: "@@ -0,1 +1 @@"`},
		{"no change", head + "@@ -1 +1 @@\n a\n", "p:3: x: hunk 1: changes nothing"},
		{"no lines at all", head + "@@ -0,0 +0,0 @@\n", "p:3: x: hunk 1: changes nothing"},
		{"overlap", head + hunk + "@@ -3,2 +3,1 @@\n c\n-d\n", "p:8: x: hunk 2: overlaps the hunk before it, which reaches to line 3"},
		{"out of order", head + "@@ -9 +9 @@\n-a\n+b\n" + hunk, "p:6: x: hunk 2: out of order: it is for line 1, the hunk before it for line 9"},
		{"stray no newline", head + "@@ -1 +1 @@\n\\ No newline\n-a\n+b\n", `p:4: x: hunk 1: stray line "\\ No newline"`},
		{"two no newline", head + "@@ -1 +1 @@\n-a\n\\ No newline\n\\ No newline\n+b\n", `p:6: x: hunk 1: stray line "\\ No newline"`},
		{"line after the end", head + "@@ -1,2 +1 @@\n-a\n\\ No newline\n-c\n+b\n", `p:6: x: hunk 1: line after the end of the file: "-c"`},
		{"hunk after the end", head + "@@ -1 +1 @@\n-a\n+b\n\\ No newline\n@@ -9 +9 @@\n-a\n+b\n",
			"p:7: x: hunk 2: comes after the end of the file, which the hunk before it marks"},

		{"header without a hunk", head, "p:1: x: file header without a hunk"},
		{"only one name line", "diff --git a/x b/x\n--- a/x\n" + hunk, `p:2: "---" line without a "+++" line`},
		{"absolute", "--- /etc/x\n+++ /etc/x\n" + hunk, `p:1: absolute path "/etc/x"`},
		{"absolute after the prefix", "--- a//etc/x\n+++ b//etc/x\n" + hunk, `p:1: absolute path "/etc/x"`},
		{"upwards", "--- a/../x\n+++ b/../x\n" + hunk, `p:1: path "a/../x" leaves the tree`},
		{"upwards at first", "--- ../x\n+++ ../x\n" + hunk, `p:1: path "../x" leaves the tree`},
		{"upwards, new name", "--- /dev/null\n+++ b/fs/../../x\n@@ -0,0 +1 @@\n+x\n", `p:2: path "b/fs/../../x" leaves the tree`},
		{"upwards, quoted", "--- \"a/\\056./x\"\n+++ b/x\n" + hunk, `p:1: path "a/../x" leaves the tree`},
		{"upwards, rename", "diff --git a/x b/../y\nrename from x\nrename to ../y\n", `p:3: path "../y" leaves the tree`},
		{"upwards, mode", "diff --git a/../x b/../x\nold mode 100644\nnew mode 100755\n", `p:1: path "a/../x" leaves the tree`},
		{"no prefix", "--- x.c\n+++ x.c\n" + hunk, `p:1: file name "x.c" has no leading directory to strip (-p1)`},
		{"git --no-prefix", "diff --git fs/x.c fs/x.c\n--- fs/x.c\n+++ fs/x.c\n" + hunk,
			"p:1: fs/x.c has no a/ and b/ before it: make the diff without --no-prefix"},
		{"no name", "--- \n+++ \n" + hunk, "p:1: empty file name"},
		{"only a prefix", "--- a/\n+++ b/\n" + hunk, "p:1: empty file name"},
		{"empty element", "--- a/fs//x\n+++ b/fs//x\n" + hunk, `p:1: malformed path "fs//x"`},
		{"dot", "--- a/.\n+++ b/.\n" + hunk, `p:1: malformed path "."`},
		{"backslash", "--- a\\fs\\x.c\n+++ b\\fs\\x.c\n" + hunk, `p:1: backslash in file name "a\\fs\\x.c"`},
		{"NUL", "--- \"a/x\\000\"\n+++ \"b/x\\000\"\n" + hunk, `p:1: control character in file name "a/x\x00"`},
		{"newline", "--- \"a/x\\n\"\n+++ \"b/x\\n\"\n" + hunk, `p:1: control character in file name "a/x\n"`},
		{"control character in a rename", "diff --git a/x b/y\nrename from \"x\\r\"\nrename to y\n", `p:2: control character in file name "x\r"`},
		{"unknown escape", "--- \"a/\\x\"\n+++ b/x\n" + hunk, `p:1: unknown escape in quoted file name "a/\x"`},
		{"octal too large", "--- \"a/\\400\"\n+++ b/x\n" + hunk, `p:1: unknown escape in quoted file name "a/\400"`},
		{"no second quote", "--- \"a/x\n+++ b/x\n" + hunk, "p:1: unterminated quoted file name"},
		{"text after the quote", "--- \"a/x\"y\n+++ b/x\n" + hunk, `p:1: text after quoted file name: "y"`},
		{"text after a rename", "diff --git a/x b/y\nrename from x\ty\nrename to y\n", `p:2: text after file name: "y"`},
		{"names differ", "--- a/x.c.orig\n+++ b/x.c\n" + hunk, "p:1: old name x.c.orig and new name x.c differ, but this is no rename"},
		{"names differ in a git header", "diff --git a/x b/y\n--- a/x\n+++ b/y\n" + hunk, "p:1: old name x and new name y differ, but this is no rename"},
		{"git header names another file", "diff --git a/x b/x\n--- a/y\n+++ b/y\n" + hunk, "p:1: diff --git line does not name y and y"},
		{"rename names another file", "diff --git a/x b/y\nrename from x\nrename to y\n--- a/x\n+++ b/z\n" + hunk,
			"p:1: --- and +++ name x and z, but the header says rename x to y"},
		{"half a rename", "diff --git a/x b/y\nrename from x\n", "p:1: rename needs both a from and a to line"},
		{"copy to itself", "diff --git a/x b/x\ncopy from x\ncopy to x\n", "p:1: copy of x to itself"},
		{"new and deleted", "diff --git a/x b/x\nnew file mode 100644\ndeleted file mode 100644\n",
			"p:1: file header contradicts itself: more than one of new, deleted, renamed, copied"},
		{"no file on either side", "--- /dev/null\n+++ /dev/null\n" + hunk, "p:1: no file on either side"},
		{"new, but not from nothing", "diff --git a/x b/x\nnew file mode 100644\n--- a/x\n+++ b/x\n" + hunk, "p:1: new file x, but --- is not /dev/null"},
		{"deleted, but not to nothing", "diff --git a/x b/x\ndeleted file mode 100644\n--- a/x\n+++ b/x\n" + hunk, "p:1: deleted file x, but +++ is not /dev/null"},
		{"new with old lines", "--- /dev/null\n+++ b/x\n" + hunk, "p:1: x: new file, but its hunk has old lines"},
		{"deleted with new lines", "--- a/x\n+++ /dev/null\n" + hunk, "p:1: x: deleted file, but its hunk has new lines"},
		{"new with CR LF", "--- /dev/null\r\n+++ b/x\r\n@@ -0,0 +1 @@\r\n+x\r\n",
			"p:1: x: patch has CR LF line ends, so that those of the new file are not known"},
		{"no change in a git header", "diff --git a/x b/x\nindex 0..1 100644\n", "p:1: x: file header without a change"},
		{"hunk right after a git header", "diff --git a/x b/x\n" + hunk, `p:1: x: hunk without "---" and "+++" lines`},
		{"malformed git header", "diff --git x\n", `p:1: malformed file header: "diff --git x"`},
		{"ambiguous git header", "diff --git a/x b/y c/z\nold mode 100644\nnew mode 100755\n", "p:1: file header does not name one file: diff --git a/x b/y c/z"},
		{"malformed index", "diff --git a/x b/x\nindex 12\n", `p:2: malformed index line "12"`},

		{"new symbolic link", "diff --git a/x b/x\nnew file mode 120000\nindex 0..1\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n",
			"p:2: symbolic link (mode 120000)"},
		{"changed symbolic link", "diff --git a/x b/x\nindex 0..1 120000\n--- a/x\n+++ b/x\n" + hunk, "p:2: symbolic link (mode 120000)"},
		{"to symbolic link", "diff --git a/x b/x\nold mode 100644\nnew mode 120000\n", "p:3: symbolic link (mode 120000)"},
		{"submodule", "diff --git a/x b/x\nindex 0..1 160000\n--- a/x\n+++ b/x\n" + hunk, "p:2: submodule (mode 160000)"},
		{"mode of a directory", "diff --git a/x b/x\nnew file mode 040000\n", `p:2: unknown file mode "040000"`},
		{"git binary", "diff --git a/x b/x\nindex 0..1 100644\nGIT binary patch\nliteral 3\nKcmZ\n\n", "p:3: binary change, which has no effect that klpc could compile"},
		{"git binary without text", "diff --git a/x b/x\nindex 0..1 100644\nBinary files a/x and b/x differ\n",
			"p:3: binary change, which has no effect that klpc could compile"},
		{"binary", head + hunk + "Binary files a/y and b/y differ\n", "p:8: binary change, which a diff cannot show"},
		{"binary first", "diff -ru a/y b/y\nBinary files a/y and b/y differ\ndiff -ru a/x b/x\n" + head + hunk, "p:2: binary change, which a diff cannot show"},
		{"only in", "Only in b: y.c\n" + head + hunk, "p:1: diff leaves out a file that is only on one side: make it with diff -N"},
		{"only in, after", head + hunk + "Only in b: y.c\n", "p:8: diff leaves out a file that is only on one side: make it with diff -N"},
		{"merge", "diff --cc x\nindex 0,1..2\n--- a/x\n+++ b/x\n@@@ -1,2 -1,2 +1,2 @@@\n  a\n", "p:1: diff of a merge: make it against one parent"},
		{"encoded mail", "From: A\nContent-Transfer-Encoding: Quoted-Printable\n\n" + head + hunk,
			"p:2: mail is encoded as quoted-printable: decode it first, as git mailinfo does"},

		{"twice", head + hunk + head + hunk, "p:8: x: changed twice in one patch, first at line 1: merge the two, or give them as two patches"},
		{"changed and renamed", head + hunk + "diff --git a/x b/y\nrename from x\nrename to y\n",
			"p:8: x: changed twice in one patch, first at line 1: merge the two, or give them as two patches"},
		{"all errors", "--- a/../x\n+++ b/x\n" + hunk + "junk\ndiff --git a/s b/s\nnew file mode 120000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+x\n" +
			"--- a/y\n+++ b/y\n@@ -1,2 +1 @@\n-a\n",
			"p:1: path \"a/../x\" leaves the tree\np:10: symbolic link (mode 120000)\n" +
				"p:17: y: hunk 1: fewer lines than its header says: header has 2 old and 1 new, the hunk 1 and 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := diff.Parse("p", []byte(test.text))
			if err == nil {
				t.Fatalf("accepted: %+v", p.Files[0])
			}
			if d := cmp.Diff(test.want, err.Error()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestParseSeries(t *testing.T) {
	mail := func(subject, diff string) string {
		return "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] " + subject + "\n\ntext\n" + diff + "-- \n2.39.5\n\n"
	}
	const x, y = "--- a/x\n+++ b/x\n" + hunk, "--- a/y\n+++ b/y\n" + hunk
	for _, test := range []struct{ name, text, want, err string }{
		{"one", x, "''[x:1]", ""},
		{"mbox", mail("zero", "") + mail("one", x+y) + mail("two", x), "'one'[x:12 y:19] 'two'[x:33]", ""},
		{"groups", "text\n" + x + y + x + x, "'text'[x:2 y:9] ''[x:16] ''[x:23]", ""},
		{"renamed back and forth", "diff --git a/x b/y\nrename from x\nrename to y\ndiff --git a/y b/y\n" + y, "''[y:1] ''[y:4]", ""},
		{"diff, then mails", x + mail("one", x), "''[x:1] 'one'[x:12]", ""},
		{"twice in a mail", mail("one", x+x), "", "p:12: x: changed twice in one patch, first at line 5: merge the two, or give them as two patches"},
		{"errors in two mails", mail("one", x+"junk\n") + mail("two", x+"junk\n"), "",
			"p:12: x: hunk 1: junk after it: \"junk\"\np:27: x: hunk 1: junk after it: \"junk\""},
		{"no diff", mail("zero", "") + mail("one", ""), "", "p: not a patch: no file header found"},
		{"empty", "\n", "", "p: empty patch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			patches, err := diff.ParseSeries("p", []byte(test.text))
			got, gotErr := "", ""
			if err != nil {
				gotErr = err.Error()
			}
			var all []string
			for _, p := range patches {
				var files []string
				for _, f := range p.Files {
					files = append(files, f.Path()+":"+strconv.Itoa(f.Line))
				}
				all = append(all, "'"+p.Title+"'["+strings.Join(files, " ")+"]")
			}
			got = strings.Join(all, " ")
			if d := cmp.Diff([]string{test.want, test.err}, []string{got, gotErr}); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
