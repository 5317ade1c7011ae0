package codegen_test

import (
	"debug/elf"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// TestExtractDamaged cuts out of objects that were damaged at random: that may
// fail, but must come to an end, and what comes out must be readable.
func TestExtractDamaged(t *testing.T) {
	for _, flags := range []string{"-fjump-tables", "-fno-function-sections"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			const source = running + `
extern struct static_key key;
int entries(int x, int *p)
{
	int v;

	WARN();
	ALT14("call work", 5, 0, "call other");
	READ_OR_ZERO(v, p, 3);
	return static_branch(&key, 0) ? v : x + 77;
}
`
			orig := compile(t, source, flags)
			patched := compile(t, replaced(t, source, "+ 77", "+ 78", "* 3", "* 5"), flags)
			o := parse(t, orig)
			r := rand.New(rand.NewPCG(33, 44))
			made := 0
			for range 1500 {
				damaged := slices.Clone(patched)
				for range 1 + r.IntN(4) {
					damaged[r.IntN(len(damaged))] = byte(r.Uint32())
				}
				p, err := elfobj.Parse(damaged)
				if err != nil || p.Type != elf.ET_REL {
					continue
				}
				d, err := elfdiff.Compare(o, p)
				if err != nil {
					continue
				}
				data, err := codegen.Extract(d)
				if err != nil {
					continue
				}
				made++
				if _, err := elfobj.Parse(data); err != nil {
					t.Errorf("what was made cannot be read: %v", err)
				}
			}
			if made < 100 {
				t.Errorf("only %d objects were made", made)
			}
		})
	}
}
