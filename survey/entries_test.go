package survey

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleNames(t *testing.T) {
	long := strings.Repeat("x", 60)
	names := []string{"CVE-2026-1.patch", "sub/fix.patch", "fix.diff", "a b+c.patch", "a_b-c.patch", "livepatch-old.patch", ".patch",
		long + "1.patch", long + "2.patch"}
	var entries []Entry
	for _, n := range names {
		entries = append(entries, Entry{Name: n})
	}
	got := moduleNames(entries)
	want := []string{"livepatch-CVE-2026-1",
		"livepatch-fix-" + digest([]byte("sub/fix.patch"))[:8], "livepatch-fix-" + digest([]byte("fix.diff"))[:8],
		"livepatch-a-b-c-" + digest([]byte("a b+c.patch"))[:8], "livepatch-a_b-c-" + digest([]byte("a_b-c.patch"))[:8],
		"livepatch-old", "livepatch-patch",
		"livepatch-" + strings.Repeat("x", 36) + "-" + digest([]byte(long + "1.patch"))[:8],
		"livepatch-" + strings.Repeat("x", 36) + "-" + digest([]byte(long + "2.patch"))[:8]}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, n := range got {
		if len(n) > maxModuleName {
			t.Errorf("%s: %d bytes", n, len(n))
		}
	}
}
