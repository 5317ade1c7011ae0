package survey

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfdiff"
)

// sample holds a patch of each verdict.
func sample() *Atlas {
	problem := elfdiff.JSONProblem{Kind: "data-changed", Where: "fs/x.c: limit (.data.limit)", Detail: "the initial value has changed", Hint: "use a callback"}
	return newAtlas("v1", "6.99.0-toy", true, []Result{
		{Patch: "t.patch", Verdict: Tested, CVEs: []string{"CVE-2000-0001"}, Titles: []string{"x: <script>alert(1)</script>", "y: more"},
			Files: []string{"fs/x.c"}, Module: "modules/livepatch-t.ko", Size: 8000, Seconds: 2.5, CPUSeconds: 3,
			Functions: []Function{{Object: "vmlinux", Name: "x_show", Sympos: 2, Change: elfdiff.IsChanged, Why: "edited", Source: "fs/x.c", Reasons: []string{"code size"}},
				{Object: "dummy", Name: "x_new", Change: elfdiff.IsNew, Why: "new", Source: "fs/x.c"}},
			Test: &Test{Accel: "tcg", NotLoaded: []string{"dummy"}, Problems: []string{}, Seconds: 4}},
		{Patch: "f.patch", Verdict: TestFailed, Module: "modules/livepatch-f.ko", Size: 9000, Log: "logs/livepatch-f.log",
			Test: &Test{Accel: "tcg", Problems: []string{"lines of the kernel log that tell of a fault: 1", "more"}, Log: []string{"WARNING: x"}}},
		{Patch: "u.patch", Verdict: Unpatchable, Reasons: []elfdiff.ProblemKind{"data-changed", "init-code"}, Problems: []elfdiff.JSONProblem{problem}},
		{Patch: "v.patch", Verdict: Unpatchable, Reasons: []elfdiff.ProblemKind{"init-code"}, Notes: []string{"a note"}},
		{Patch: "n.patch", Verdict: NoEffect, NoEffect: []string{"README"}},
		{Patch: "a.patch", Verdict: DoesNotApply, Error: "fs/x.c: hunk 1"},
		{Patch: "c.patch", Verdict: DoesNotCompile, Error: "fs/x.c:3:1: error: no", Seconds: 1},
		{Patch: "i.patch", Verdict: InternalError, Error: "panic: no\nmore"},
	}, []string{"p.patch"})
}

func TestSummary(t *testing.T) {
	got := sample().Summary
	want := Summary{Patches: 8, Candidates: 5, Converted: 1, Seconds: 7.5, CPUSeconds: 3,
		Verdicts: map[Verdict]int{Tested: 1, Built: 0, TestFailed: 1, Unpatchable: 2, NoEffect: 1, DoesNotApply: 1, DoesNotCompile: 1, InternalError: 1},
		Reasons:  []ReasonCount{{"init-code", 2}, {"data-changed", 1}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Print(&b); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/atlas.txt")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Error(d)
	}
}

// Whatever a patch says of itself is text on the page, and the page needs
// nothing but itself and the files beside it.
func TestPage(t *testing.T) {
	page, err := renderHTML(sample())
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	if strings.Contains(text, "<script>alert") || !strings.Contains(text, "x: &lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error("a title is not escaped")
	}
	for _, found := range regexp.MustCompile(`(?i)\b(src|href|action)\s*=\s*"([^"]*)"|@import|url\(|https?://`).FindAllStringSubmatch(text, -1) {
		switch found[2] {
		case "modules/livepatch-t.ko", "modules/livepatch-f.ko", "logs/livepatch-f.log", "atlas.json":
		default:
			t.Errorf("the page refers to %q", found[0])
		}
	}
	for _, want := range []string{
		"What became of 8 patches on 6.99.0-toy", "<strong>1 of 5</strong>", "Not complete", "<li>p.patch</li>",
		"x_show,2", "use a callback", "the initial value has changed", "Not loaded in the guest", "WARNING: x", "a note", "fs/x.c:3:1: error: no", "CVE-2000-0001",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(text, `<tbody data-order=`); n != 8 {
		t.Errorf("%d rows, want 8", n)
	}
	again, err := renderHTML(sample())
	if err != nil || !bytes.Equal(page, again) {
		t.Errorf("the page is not the same twice (%v)", err)
	}
}
