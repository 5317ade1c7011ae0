package verify

import (
	"debug/elf"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
)

// struct jump_entry: two places relative to themselves, and the key; bytes.
// Source: include/linux/jump_label.h (HAVE_ARCH_JUMP_LABEL_RELATIVE).
const (
	jumpTable     = "__jump_table"
	jumpEntry     = 16
	jumpEntryCode = 0
	jumpEntryKey  = 8
)

// Silence returns an object of a module without its static branches on the
// module's own tracepoints, which a livepatch leaves off (see shape.go). objtool
// has to see the object so: code that only such a branch reaches is dead in the
// livepatch, and has no unwind information there. The object is not changed.
func Silence(o *elfobj.Object, m *target.Module) (*elfobj.Object, error) {
	defined := map[string]bool{}
	for _, s := range m.Object.Symbols {
		if s.Section != nil && strings.HasPrefix(s.Name, tracepointPrefix) {
			defined[s.Name] = true
		}
	}
	own := func(r elfobj.Reloc) bool {
		return r.Off%jumpEntry == jumpEntryKey && r.Sym != nil && defined[r.Sym.Name]
	}
	relocsOf := func(s *elfobj.Section) bool {
		return s.Type == elf.SHT_RELA && s.Target != nil && s.Target.Name == jumpTable && s.Target.Size%jumpEntry == 0
	}
	if !slices.ContainsFunc(o.Sections, func(s *elfobj.Section) bool { return relocsOf(s) && slices.ContainsFunc(s.Relocs, own) }) {
		return o, nil
	}
	data, err := o.Encode()
	if err != nil {
		return nil, err
	}
	c, err := elfobj.Parse(data)
	if err != nil {
		return nil, err
	}
	for _, s := range c.Sections {
		if relocsOf(s) {
			silenceTable(c, s, own)
		}
	}
	return c, nil
}

// silenceTable drops the entries of a jump table whose key own tells of.
func silenceTable(o *elfobj.Object, table *elfobj.Section, own func(elfobj.Reloc) bool) {
	drop := map[uint64]bool{} // by index
	for _, r := range table.Relocs {
		if own(r) {
			drop[r.Off/jumpEntry] = true
		}
	}
	var kept []elfobj.Reloc
	for _, r := range table.Relocs {
		i := r.Off / jumpEntry
		if drop[i] {
			if r.Off%jumpEntry == jumpEntryCode && r.Sym != nil && r.Sym.Section != nil {
				silenceSite(o, r.Sym.Section, r.Sym.Value+uint64(r.Addend))
			}
			continue
		}
		before := uint64(0)
		for j := range drop {
			if j < i {
				before++
			}
		}
		r.Off -= before * jumpEntry
		kept = append(kept, r)
	}
	var data []byte
	for i := range table.Target.Size / jumpEntry {
		if !drop[i] {
			data = append(data, table.Target.Data[i*jumpEntry:][:jumpEntry]...)
		}
	}
	table.Relocs = kept
	table.Target.Data, table.Target.Size = data, uint64(len(data))
}

// silenceSite makes a static branch a nop.
func silenceSite(o *elfobj.Object, code *elfobj.Section, at uint64) {
	if at >= uint64(len(code.Data)) {
		return
	}
	nop := branchNops()[code.Data[at]]
	if uint64(len(nop)) > uint64(len(code.Data))-at {
		return
	}
	copy(code.Data[at:], nop)
	for _, s := range o.Sections {
		if len(nop) > 0 && s.Type == elf.SHT_RELA && s.Target == code {
			s.Relocs = slices.DeleteFunc(s.Relocs, func(r elfobj.Reloc) bool { return r.Off == at+1 })
		}
	}
}

// branchNops are the nops of the length of a static branch's jump, by its first
// byte. Source: arch/x86/include/asm/nops.h.
func branchNops() map[byte][]byte {
	return map[byte][]byte{0xeb: {0x66, 0x90}, 0xe9: {0x0f, 0x1f, 0x44, 0x00, 0x00}}
}

// tracepointPrefix begins the names of tracepoints. Source:
// include/linux/tracepoint.h.
const tracepointPrefix = "__tracepoint_"
