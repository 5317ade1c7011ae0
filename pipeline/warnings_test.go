package pipeline

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWarnings: the body of a tracepoint that is switched off is no news; code that
// nothing leads to in another function is.
func TestWarnings(t *testing.T) {
	const output = "  LD [M] x.ko\nx.o: warning: objtool: f+0x3ab: unreachable instruction\nx.o: warning: objtool: f+0x3ab: stack state mismatch\n" +
		"x.o: warning: objtool: g+0x12: unreachable instruction\n"
	notes := []string{"a.c: the tracepoint smb3_enter of module cifs stays silent in the patched f", "a.c: another note of g"}
	want := []string{"x.o: warning: objtool: f+0x3ab: stack state mismatch", "x.o: warning: objtool: g+0x12: unreachable instruction"}
	if d := cmp.Diff(want, warnings([]byte(output), notes)); d != "" {
		t.Error(d)
	}
}
