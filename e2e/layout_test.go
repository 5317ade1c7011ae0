package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klpc/klpc/pipeline"
)

// testLayout builds what changes types and may be built all the same.
func testLayout(t *testing.T, k kernel) {
	for _, c := range []struct {
		name, patch string
		allow       []string
		verdicts    []string // TYPE: verdict
		notes       []string
	}{
		{"allowed", "refused/layout-field", []string{"eventfd_ctx", "struct other"}, []string{"struct eventfd_ctx: allowed"},
			[]string{"the change of struct eventfd_ctx is allowed by --allow-layout-change: field last is added", "--allow-layout-change struct other: the patch changes no layout of that name"}},
		{"on the stack", "layout-on-stack", nil, []string{"struct getdents_callback: stack-only"},
			[]string{"struct getdents_callback changes; it exists only while functions of fs/readdir.c run"}},
		{"no types", "cmdline", nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !only(t).MatchString("layout-" + c.name) {
				t.Skip("not chosen by KLPC_E2E_ONLY")
			}
			report, err := pipeline.Build(t.Context(), k.Kernel, pipeline.BuildOptions{Patches: []string{k.patch(t, c.patch)},
				Output: filepath.Join(t.TempDir(), "livepatch-layout.ko"), Cache: k.cache, AllowLayout: c.allow})
			if err != nil {
				t.Fatalf("%v%s", err, problems(report))
			}
			var verdicts []string
			for _, l := range report.Layout {
				verdicts = append(verdicts, l.Type+": "+string(l.Verdict))
			}
			if !slices.Equal(verdicts, c.verdicts) {
				t.Errorf("verdicts %q, want %q", verdicts, c.verdicts)
			}
			text := strings.Join(report.Notes, "\n")
			for _, n := range c.notes {
				if !strings.Contains(text, n) {
					t.Errorf("the notes do not say %q:\n%s", n, text)
				}
			}
		})
	}
}
