package codegen_test

import (
	"debug/elf"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/codegen"
)

// A call that ends a function does not return: objtool must be told where it
// cannot look at the callee, because that stays in the kernel.
func TestDeadEnd(t *testing.T) {
	const stays = `
static noinline __attribute__((__noreturn__)) void lonely(int x) { for (;;) work(x); }
int f(int x) { if (work(x) > 100) lonely(x); return x + 1; }
`
	for _, tt := range []struct {
		name, old, new string
		want           int // calls that end code
	}{
		{"to a function that stays", "x + 1", "x + 2", 1},
		{"to one that is itself changed, by its pointer", "for (;;) work(x)", "for (;;) other(x)", 0},
		{"there is none", "if (work(x) > 100) lonely(x);", "work(x);", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := codegen.Decide(units(t, []source{{orig: stays, edits: []string{tt.old, tt.new}}}), kernel(t, nil))
			if err != nil {
				t.Fatal(err)
			}
			var ends []string
			for _, s := range p.Emit()[0].Sections {
				if s.Type != elf.SHT_RELA || s.Target.Name != ".discard.unreachable" {
					continue
				}
				for _, r := range s.Relocs {
					if r.Sym.Type != elf.STT_SECTION || r.Sym.Section == nil || uint64(r.Addend) != r.Sym.Section.Size {
						t.Errorf("%+v does not lead to the end of a section", r)
					}
					ends = append(ends, fmt.Sprint(r.Off))
				}
			}
			var want []string
			for i := range tt.want {
				want = append(want, fmt.Sprint(4*i))
			}
			if d := cmp.Diff(want, ends); d != "" {
				t.Error(d)
			}
		})
	}
}
