package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/survey"
)

// surveyed is a patch of each verdict that a sound klpc gives. The one that
// warns stands before one that it must not spoil.
var surveyed = []struct {
	patch string // name in testdata/patches, or the text of a patch
	want  survey.Verdict
}{
	{"warns", survey.TestFailed},
	{"cmdline", survey.Tested},
	{"module", survey.Tested},
	{"refused/data-value", survey.Unpatchable},
	{"refused/whitespace", survey.NoEffect},
	{"--- a/fs/proc/cmdline.c\n+++ b/fs/proc/cmdline.c\n@@ -1,1 +1,2 @@\n // not its first line\n+int more;\n", survey.DoesNotApply},
	{"--- a/fs/proc/version.c\n+++ b/fs/proc/version.c\n@@ -1,2 +1,3 @@\n // SPDX-License-Identifier: GPL-2.0\n+#include \"of-another-patch.h\"\n #include <linux/fs.h>\n", survey.DoesNotCompile},
}

// TestSurvey tries patches on a stock kernel and the modules on the booted one;
// a second run does nothing anew.
func TestSurvey(t *testing.T) {
	needBoot(t)
	if !only(t).MatchString("survey") {
		t.Skip("KLPC_E2E_ONLY leaves the survey out")
	}
	k := openKernel(t, "6.12")
	dir := t.TempDir()
	var want []string
	for i, s := range surveyed {
		name := fmt.Sprintf("%d-%s.patch", i, s.want)
		want = append(want, fmt.Sprintf("%s: %s", name, s.want))
		text := []byte(s.patch)
		if !strings.Contains(s.patch, "\n") {
			var err error
			if text, err = os.ReadFile(k.patch(t, s.patch)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "atlas")
	a := runSurvey(t, k, out, dir)
	var got []string
	for _, r := range a.Patches {
		got = append(got, fmt.Sprintf("%s: %s", r.Patch, r.Verdict))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("verdicts: %s", d)
	}
	for _, r := range a.Patches {
		checkResult(t, out, r)
	}
	if warns := a.Patches[0]; warns.Test == nil || !slices.ContainsFunc(warns.Test.Log, func(l string) bool { return strings.Contains(l, "WARNING: ") }) {
		t.Errorf("the warning is not in the atlas: %+v", warns.Test)
	}
	if r := a.Patches[6]; !strings.Contains(r.Error, "of-another-patch.h: No such file or directory") {
		t.Errorf("the compiler's first error is %q", r.Error)
	}
	again := runSurvey(t, k, out, dir)
	if d := cmp.Diff(a, again); d != "" {
		t.Errorf("a second run has other results: %s", d)
	}
}

// checkResult checks what the atlas says of a patch against what lies beside it.
func checkResult(t *testing.T, out string, r survey.Result) {
	t.Helper()
	passed := r.Verdict == survey.Tested
	switch {
	case (r.Module != "") != (passed || r.Verdict == survey.TestFailed):
		t.Errorf("%s: %s, module %q", r.Patch, r.Verdict, r.Module)
	case r.Module != "":
		if st, err := os.Stat(filepath.Join(out, r.Module)); err != nil || st.Size() != int64(r.Size) {
			t.Errorf("%s: %s is not of %d bytes (%v)", r.Patch, r.Module, r.Size, err)
		}
		if r.Test == nil || (len(r.Test.Problems) == 0) != passed || len(r.Functions) == 0 {
			t.Errorf("%s: %s, test %+v, %d functions", r.Patch, r.Verdict, r.Test, len(r.Functions))
		}
	}
	if (len(r.Reasons) > 0) != (r.Verdict == survey.Unpatchable) {
		t.Errorf("%s: %s, reasons %v", r.Patch, r.Verdict, r.Reasons)
	}
	for _, p := range r.Problems {
		if p.Where == "" || p.Detail == "" || p.Hint == "" {
			t.Errorf("%s: a problem says too little: %+v", r.Patch, p)
		}
	}
}

// runSurvey surveys a folder and returns the atlas as it was written.
func runSurvey(t *testing.T, k kernel, out, dir string) *survey.Atlas {
	t.Helper()
	entries, err := survey.Find([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	a, err := survey.Run(t.Context(), survey.Options{Kernel: k.Kernel, Entries: entries, Dir: out, Test: true,
		Build: pipeline.BuildOptions{Cache: k.cache, CacheSize: pipeline.DefaultCacheSize}, Version: "test", Digest: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if !a.Complete {
		t.Errorf("not complete: %v", a.Pending)
	}
	data, err := os.ReadFile(filepath.Join(out, "atlas.json"))
	if err != nil {
		t.Fatal(err)
	}
	var written survey.Atlas
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&written); err != nil {
		t.Fatal(err)
	}
	return &written
}

// corpus holds fixes for a kernel, outside of this repository.
const corpus = "../../shared/corpus/cve-6.1.170"

// corpusKernel is the kernel that they are for.
const corpusKernel = "debian:6.1.0-47-cloud-amd64"

// TestCorpus surveys real fixes. Which patches can be refused is for the
// patches' authors and the kernel to say; how many must become modules is the
// project's figure.
func TestCorpus(t *testing.T) {
	needBoot(t)
	if os.Getenv("KLPC_TEST_ALL") != "1" {
		t.Skip("KLPC_TEST_ALL is not 1: the corpus takes half an hour")
	}
	if _, err := os.Stat(corpus); err != nil {
		t.Skipf("no corpus of fixes: %v", err)
	}
	cache, err := pipeline.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := pipeline.OpenKernel(t.Context(), pipeline.KernelOptions{Kernel: corpusKernel, Cache: cache}, pipeline.Events{})
	if err != nil {
		t.Fatal(err)
	}
	a := runSurvey(t, kernel{Kernel: k, cache: cache}, filepath.Join(t.TempDir(), "atlas"), corpus)
	var text bytes.Buffer
	if err := a.Print(&text); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text.String())
	hint := regexp.MustCompile(`\w+ \w+`)
	for _, r := range a.Patches {
		switch r.Verdict {
		case survey.InternalError, survey.TestFailed:
			t.Errorf("%s: %s: %s %+v", r.Patch, r.Verdict, r.Error, r.Test)
		case survey.Unpatchable:
			t.Logf("%s: %v", r.Patch, r.Reasons)
			for _, p := range r.Problems {
				if !hint.MatchString(p.Hint) {
					t.Errorf("%s: %s without a hint", r.Patch, p.Kind)
				}
			}
		}
	}
	const share = 0.92
	if s := a.Summary; float64(s.Converted) < share*float64(s.Candidates) {
		t.Errorf("%d of %d patches became modules that passed their test, want %.0f %%", s.Converted, s.Candidates, 100*share)
	}
}
