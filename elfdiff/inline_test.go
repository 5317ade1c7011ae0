package elfdiff

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNotInlined: an inline function that stands by itself has no ftrace entry. It
// travels with its callers if these are all that reach it and can be patched.
func TestNotInlined(t *testing.T) {
	const f = "static noinline notrace int f(int x) { return work(x) + 1; } "
	for _, c := range []struct {
		name, orig string
		inline     []string
		want       string
	}{
		{"its callers", f + "int h(int x) { return f(x) * 2; } int k(int x) { return f(x + 3) * 4; }" + g, []string{"f"}, wanted(changed, "f", "h", "k")},
		{"callers that are inline themselves", f + "static noinline notrace int m(int x) { return f(x) * 5; } int h(int x) { return m(x) * 2; }" + g, []string{"f", "m"}, wanted(changed, "f", "h", "m")},
		{"a caller without ftrace entry that is not inline", f + "static noinline notrace int m(int x) { return f(x) * 5; } int h(int x) { return m(x) * 2; }" + g, []string{"f"},
			wanted(unpatchable, "f", "no-ftrace-entry f")},
		{"not known to be inline", f + "int h(int x) { return f(x) * 2; }" + g, []string{"g", "h"}, wanted(unpatchable, "f", "no-ftrace-entry f")},
		{"its address is passed on", f + "int h(int x) { use(f); return f(x) * 2; }" + g, []string{"f"}, wanted(unpatchable, "f", "no-ftrace-entry f")},
		{"its address is in data", f + "int (*const ops[])(int) = { f }; int h(int x) { return f(x) * 2; }" + g, []string{"f"}, wanted(unpatchable, "f", "no-ftrace-entry f")},
		{"called by init code", f + "int __init h(int x) { return f(x) * 2; } int k(int x) { return f(x) * 4; }" + g, []string{"f"}, wanted(unpatchable, "f", "no-ftrace-entry f")},
		{"it is global", "notrace noinline int f(int x) { return work(x) + 1; } int h(int x) { return f(x) * 2; }" + g, []string{"f"}, wanted(unpatchable, "f", "no-ftrace-entry f")},
	} {
		for _, cc := range slices.Concat(installed("gcc"), installed("clang")) {
			t.Run(c.name+"/"+cc, func(t *testing.T) {
				t.Parallel()
				orig := parse(t, buildSource(t, cc, c.orig, ""))
				patched := parse(t, buildSource(t, cc, replaceAll(t, c.orig, []string{"+ 1;", "+ 2;"}), ""))
				r, err := CompareKnowing(orig, patched, Source{Inline: c.inline})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, meaningOf(r)); d != "" {
					t.Errorf("-want +got:\n%s\n%s", d, render(r))
				}
				if asks := slices.Contains(r.MayBeInline(), "f"); asks != (c.name != "it is global") {
					t.Errorf("asks for %v", r.MayBeInline())
				}
			})
		}
	}
}
