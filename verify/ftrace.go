package verify

// Where ftrace can take over: in the kernel's own list, or in a module's
// __mcount_loc.

import (
	"bytes"
	"slices"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
)

// sites are the addresses at which ftrace can patch.
type sites struct {
	kernel []uint64
	err    error
}

// traceable says why a function cannot be redirected; "" if it can. ftrace must
// have a place at its start, or behind an ENDBR64 (ftrace_location,
// kernel/trace/ftrace.c).
func (v *Verifier) traceable(at kernelPlace) string {
	if at.object == VMLinux {
		if v.kernel.Image == nil {
			return "" // said by the first proof
		}
		if v.sites == nil {
			v.sites = &sites{}
			v.sites.kernel, v.sites.err = v.kernel.Image.FtraceSites(v.kernel.Symtab)
		}
		if v.sites.err != nil {
			return v.sites.err.Error()
		}
		if near(v.sites.kernel, at.off, v.endbrAt(at)) {
			return ""
		}
		return "the kernel's list of ftrace locations has no place at its start"
	}
	m := v.kernel.Modules[at.object]
	if !near(moduleSites(m, at.sec), at.off, bytes.HasPrefix(at.sec.Data[min(at.off, uint64(len(at.sec.Data))):], endbr64)) {
		return "the module's list of ftrace locations has no place at its start"
	}
	return ""
}

var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

func (v *Verifier) endbrAt(at kernelPlace) bool {
	b, ok := v.kernel.Image.Bytes(at.off, len(endbr64))
	return ok && bytes.Equal(b, endbr64)
}

// near tells whether a sorted list has an address, or the one four bytes on where
// an ENDBR64 begins the function.
func near(list []uint64, addr uint64, endbr bool) bool {
	_, ok := slices.BinarySearch(list, addr)
	if !ok && endbr {
		_, ok = slices.BinarySearch(list, addr+4)
	}
	return ok
}

// moduleSites lists the places in a section that a module's __mcount_loc names.
func moduleSites(m *target.Module, sec *elfobj.Section) []uint64 {
	var out []uint64
	for _, s := range m.Object.Sections {
		if s.Name != mcountTable {
			continue
		}
		for _, r := range m.Object.Relocs(s) {
			if r.Sym != nil && r.Sym.Section == sec {
				out = append(out, r.Sym.Value+uint64(r.Addend))
			}
		}
	}
	slices.Sort(out)
	return out
}

// ftrace counts the redirected functions that ftrace can reach.
func (c *check) ftrace() {
	if c.tables == nil || c.v.kernel.Image == nil {
		return
	}
	n := 0
	for _, o := range c.tables.objects {
		for _, f := range o.funcs {
			if at, err := c.v.resolve(o.name, f.name, f.pos); err == nil && c.v.traceable(at) == "" {
				n++
			}
		}
	}
	c.count(Accepted, "functions with an ftrace location", n)
}
