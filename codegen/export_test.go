package codegen

import (
	"debug/elf"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
)

// CheckAgainstKernel locates every function of a rebuilt vmlinux unit in the
// kernel and compares the code. It returns the number of functions that are
// equal, of those that the kernel does not list, and what differs. Weak functions
// are left out: another file may override them.
func CheckAgainstKernel(v *elfdiff.View, t Target) (equal, absent int, differ []error) {
	l := newLocator(v, t)
	for _, p := range v.Pieces {
		if !p.Func || p.Sym == nil || p.Init || p.Sym.Bind == elf.STB_WEAK {
			continue
		}
		i, err := l.symbol(p)
		if err != nil {
			if len(t.Symtab.Named(p.Sym.Name)) == 0 {
				absent++
				continue
			}
			differ = append(differ, err)
			continue
		}
		if err := l.verify(p, t.Symtab.At(i).Addr); err != nil {
			differ = append(differ, fmt.Errorf("%s: %w", p.Sym.Name, err))
			continue
		}
		equal++
	}
	return equal, absent, differ
}
