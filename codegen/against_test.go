package codegen_test

import (
	"debug/elf"
	"fmt"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/locate"
)

// checkAgainstKernel locates every function of a rebuilt vmlinux unit in the
// kernel and compares the code. It returns the number of functions that are
// equal, of those that the kernel does not list, and what differs. Weak functions
// are left out: another file may override them.
func checkAgainstKernel(v *elfdiff.View, t codegen.Target) (equal, absent int, differ []error) {
	l := locate.NewKernel(v, t.Symtab, t.Image)
	for _, p := range v.Pieces {
		if !p.Func || p.Sym == nil || p.Init || p.Sym.Bind == elf.STB_WEAK {
			continue
		}
		_, err := l.Symbol(p)
		if err != nil {
			if len(t.Symtab.Named(p.Sym.Name)) == 0 {
				absent++
				continue
			}
			differ = append(differ, err)
			continue
		}
		if err := l.Verify(p); err != nil {
			differ = append(differ, fmt.Errorf("%s: %w", p.Sym.Name, err))
			continue
		}
		equal++
	}
	return equal, absent, differ
}
