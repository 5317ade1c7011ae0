package pipeline

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// emptyObject is what a new unit is compared with: everything in it is new.
func emptyObject(like *elfobj.Object) *elfobj.Object {
	return &elfobj.Object{Type: elf.ET_REL, Machine: like.Machine, OSABI: like.OSABI, Flags: like.Flags}
}

// initcallNotes say what a new unit would do at boot or load time, and does not
// do in a livepatch.
func initcallNotes(p *pair) []string {
	calls := initcalls(p.patched)
	if len(calls) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s would run while the kernel boots or the module loads, and does not run in a livepatch: call what is needed from a pre-patch callback (KLP_PRE_PATCH_CALLBACK)",
		p.unit.Source, strings.Join(calls, ", "))}
}

// initcalls names the functions of an object that the kernel calls while it
// boots or that module loading calls, sorted. A built-in object has a table of
// them (include/linux/init.h, ___define_initcall), a module the symbol
// init_module as another name of its function.
func initcalls(o *elfobj.Object) []string {
	var names []string
	for _, s := range o.Sections {
		if !strings.HasPrefix(s.Name, ".initcall") && !strings.HasPrefix(s.Name, ".con_initcall") {
			continue
		}
		for _, r := range o.Relocs(s) {
			if r.Sym != nil {
				names = append(names, functionAt(o, r.Sym, r.Addend)...)
			}
		}
	}
	for _, s := range o.Symbols {
		if s.Name == "init_module" && s.Section != nil {
			names = append(names, functionAt(o, s, 0)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// functionAt names the functions at a place, other than init_module.
func functionAt(o *elfobj.Object, at *elfobj.Symbol, addend int64) []string {
	var names []string
	for _, s := range o.Symbols {
		if s.Type == elf.STT_FUNC && s.Section != nil && s.Section == at.Section && s.Value == at.Value+uint64(addend) && s.Name != "init_module" {
			names = append(names, s.Name)
		}
	}
	return names
}
