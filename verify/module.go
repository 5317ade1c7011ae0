package verify

// Reading the module: its relocations by the place that they fill, ordinary
// ones and those of the livepatch core alike; what its livepatch symbols mean in
// the running kernel; and which of its bytes have been accounted for.

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/arch"
	"github.com/klpc/klpc/target"
)

// archTables are the relocation types.
type archTables map[uint32]arch.RelocType

// reloc is one relocation of the module.
type reloc struct {
	elfobj.Reloc
	sec  *elfobj.Section // that it fills
	klp  string          // the object in whose livepatch section it is; empty: ordinary
	used bool
}

// place is an offset in a section of the module.
type place struct {
	sec *elfobj.Section
	off uint64
}

// kernelPlace is an address in vmlinux, or an offset in a section of a module.
type kernelPlace struct {
	object string
	sec    *elfobj.Section // of a module's file
	off    uint64          // bytes from sec, or the address
}

func (p kernelPlace) plus(n int64) kernelPlace {
	p.off += uint64(n)
	return p
}

// claim is a range of the module that is accounted for.
type claim struct {
	lo, hi  uint64
	what    string
	literal bool
}

// check is one run over a module.
type check struct {
	v      *Verifier
	report *Report
	mod    *target.Module
	obj    *elfobj.Object
	file   []byte // without a signature
	signed bool
	opened bool

	relocs map[*elfobj.Section][]*reloc // by the section that they fill, ascending
	named  map[string][]*elfobj.Symbol
	at     map[place][]*elfobj.Symbol
	klp    map[*elfobj.Symbol]kernelPlace // what livepatch symbols mean
	tables *tables                        // nil if they cannot be read

	pairs   map[pieceID]place
	queue   []pieceID
	done    map[pieceID]bool // whose special-section entries were compared
	claims  map[*elfobj.Section][]claim
	entries map[*elfobj.Section]map[place][]uint64
	taken   map[place]bool // functions whose address something takes
	silent  bool           // a comparison that is tried out: findings are counted only
	trial   int

	counts  map[ProofName][]Count
	missing map[ProofName][]string
}

func (c *check) find(p ProofName, where, detail, hint string) {
	if c.silent {
		c.trial++
		return
	}
	c.report.Findings = append(c.report.Findings, Finding{Proof: p, Where: where, Detail: detail, Hint: hint})
}

func (c *check) lacks(p ProofName, why string) { c.missing[p] = append(c.missing[p], why) }

func (c *check) count(p ProofName, what string, n int) {
	c.counts[p] = append(c.counts[p], Count{what, n})
}

const reportHint = "this module must not be loaded: build it again, and report it if the same comes out"

// open reads the file. It returns false if nothing else can be said.
func (c *check) open(data []byte) bool {
	c.report.Module = "?"
	c.file, c.signed = cutSignature(data)
	m, err := target.ReadModule(c.file)
	if err != nil {
		c.find(Accepted, "the file", err.Error(), "name a livepatch module")
		return false
	}
	c.mod, c.obj, c.report.Module = m, m.Object, m.Name
	a, ok := arch.ByMachine(m.Object.Machine)
	if !ok {
		c.find(Accepted, "the file", fmt.Sprintf("it is for %v", m.Object.Machine), "klpc knows x86-64 only")
		return false
	}
	c.v.arch = a.Relocs
	c.relocs = map[*elfobj.Section][]*reloc{}
	c.named, c.at = map[string][]*elfobj.Symbol{}, map[place][]*elfobj.Symbol{}
	for _, s := range c.obj.Symbols {
		if s.Type == elf.STT_SECTION || s.Type == elf.STT_FILE {
			continue
		}
		c.named[s.Name] = append(c.named[s.Name], s)
		if s.Section != nil {
			p := place{s.Section, s.Value}
			c.at[p] = append(c.at[p], s)
		}
	}
	c.readRelocs()
	c.klp = map[*elfobj.Symbol]kernelPlace{}
	c.done = map[pieceID]bool{}
	c.pairs, c.claims = map[pieceID]place{}, map[*elfobj.Section][]claim{}
	c.entries, c.taken = map[*elfobj.Section]map[place][]uint64{}, map[place]bool{}
	c.opened = true
	return true
}

// signatureMarker ends a signed module. Source: include/linux/module_signature.h.
const signatureMarker = "~Module signature appended~\n"

// cutSignature takes the signature from the end of a file: the marker, and in
// front of it struct module_signature, whose last four bytes are the length of
// the signature before it, big-endian.
func cutSignature(data []byte) (file []byte, signed bool) {
	rest, ok := strings.CutSuffix(string(data[max(0, len(data)-len(signatureMarker)):]), signatureMarker)
	if !ok || rest != "" {
		return data, false
	}
	const info = 12 // bytes of struct module_signature
	end := len(data) - len(signatureMarker)
	if end < info {
		return data, false
	}
	n := int(data[end-4])<<24 | int(data[end-3])<<16 | int(data[end-2])<<8 | int(data[end-1])
	if n <= 0 || n > end-info {
		return data, false
	}
	return data[: end-info-n : end-info-n], true
}

// readRelocs collects the relocations that the kernel applies: those of loaded
// sections.
func (c *check) readRelocs() {
	for _, s := range c.obj.Sections {
		if s.Type != elf.SHT_RELA || s.Target == nil || s.Target.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		klp := ""
		if s.Flags&elfobj.SHFRelaLivepatch != 0 {
			if klp = c.klpObject(s); klp == "" {
				continue
			}
		}
		for _, r := range s.Relocs {
			if elf.R_X86_64(r.Type) == elf.R_X86_64_NONE && klp == "" {
				continue
			}
			c.relocs[s.Target] = append(c.relocs[s.Target], &reloc{Reloc: r, sec: s.Target, klp: klp})
		}
	}
	for sec, rs := range c.relocs {
		slices.SortStableFunc(rs, func(a, b *reloc) int { return cmp.Compare(a.Off, b.Off) })
		for i, r := range rs {
			size := uint64(c.v.arch[r.Type].Size)
			if r.Off > sec.Size || size > sec.Size-r.Off {
				c.find(Accepted, c.where(sec, r.Off), "a relocation reaches beyond the end of its section", reportHint)
			}
			if i > 0 && r.Off < rs[i-1].Off+uint64(max(c.v.arch[rs[i-1].Type].Size, 1)) {
				c.find(Accepted, c.where(sec, r.Off), "two relocations fill the same bytes", reportHint)
			}
		}
	}
}

// within returns the relocations of a section in a range of bytes.
func (c *check) within(sec *elfobj.Section, lo, hi uint64) []*reloc {
	rs := c.relocs[sec]
	i := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= lo })
	j := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= hi })
	return rs[i:j]
}

// relocAt returns the relocation at a place, or nil.
func (c *check) relocAt(sec *elfobj.Section, off uint64) *reloc {
	if rs := c.within(sec, off, off+1); len(rs) > 0 {
		return rs[0]
	}
	return nil
}

// where describes a place of the module.
func (c *check) where(sec *elfobj.Section, off uint64) string {
	pos := elfobj.Pos{Section: sec.Name, Off: off}
	var best *elfobj.Symbol
	for _, s := range c.obj.Symbols {
		if s.Section == sec && s.Name != "" && s.Type != elf.STT_SECTION && !strings.HasPrefix(s.Name, "__pfx_") &&
			s.Value <= off && (off < s.Value+s.Size || s.Size == 0 && off == s.Value) && (best == nil || s.Value > best.Value) {
			best = s
		}
	}
	if best != nil {
		pos.Symbol, pos.Off = best.Name, off-best.Value
	}
	return pos.String()
}

// klpObject is the object that a livepatch relocation section names. The kernel
// reads the name with ".klp.rela.%55[^.]" (kernel/livepatch/core.c).
func (c *check) klpObject(s *elfobj.Section) string {
	rest, ok := strings.CutPrefix(s.Name, ".klp.rela.")
	object, sec, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || object == "" || len(object) > maxObjectName || sec != s.Target.Name || s.Flags&elf.SHF_ALLOC == 0 {
		c.find(Accepted, s.Name, "the section of livepatch relocations has a name or flags that the kernel does not take, or is for another section than it names", reportHint)
		return ""
	}
	return object
}

// Limits of the kernel, in bytes without the NUL: MODULE_NAME_LEN is 56 on
// 64-bit machines, KSYM_NAME_LEN 512.
const (
	maxObjectName = 55
	maxSymbolName = 511
)

// klpSymbol takes a livepatch symbol's name apart. The kernel reads it with
// ".klp.sym.%55[^.].%511[^,],%lu".
func klpSymbol(full string) (object, name string, pos int, ok bool) {
	rest, ok1 := strings.CutPrefix(full, ".klp.sym.")
	object, rest, ok2 := strings.Cut(rest, ".")
	name, number, ok3 := strings.Cut(rest, ",")
	n, err := strconv.ParseUint(number, 10, 31)
	canonical := strconv.FormatUint(n, 10) == number
	ok = ok1 && ok2 && ok3 && err == nil && canonical && object != "" && len(object) <= maxObjectName && name != "" && len(name) <= maxSymbolName
	return object, name, int(n), ok
}

// resolve is what the livepatch core makes of an object's name and a position.
func (v *Verifier) resolve(object, name string, pos int) (kernelPlace, error) {
	if object == VMLinux {
		all := v.kernel.Symtab.Named(name)
		switch {
		case len(all) == 0:
			return kernelPlace{}, fmt.Errorf("the kernel has no symbol %s", name)
		case pos == 0 && len(all) > 1:
			return kernelPlace{}, fmt.Errorf("the kernel has %d symbols %s, and the position that would tell them apart is not given", len(all), name)
		case pos > 0 && len(all) == 1:
			return kernelPlace{}, fmt.Errorf("position %d: the kernel has one symbol %s, which is named without a position", pos, name)
		case pos > len(all):
			return kernelPlace{}, fmt.Errorf("position %d: the kernel has %d symbols %s", pos, len(all), name)
		}
		return kernelPlace{object: VMLinux, off: v.kernel.Symtab.At(all[max(pos, 1)-1]).Addr}, nil
	}
	m := v.kernel.Modules[object]
	if m == nil {
		return kernelPlace{}, fmt.Errorf("the file of module %s was not found", object)
	}
	for _, s := range m.Named(name) {
		at, ambiguous := m.Sympos(s)
		if s.Section != nil && !ambiguous && at == pos {
			return kernelPlace{object: object, sec: s.Section, off: s.Value}, nil
		}
	}
	return kernelPlace{}, fmt.Errorf("module %s has no symbol %s at position %d, or not at all times", object, name, pos)
}

// internal returns where in the module a relocation leads: its symbol's place
// and the addend, without what is relative to the field's own place.
func internal(r *reloc) (place, bool) {
	if r.Sym == nil || r.Sym.Section == nil {
		return place{}, false
	}
	return place{r.Sym.Section, r.Sym.Value + uint64(r.Addend)}, true
}

// claim notes that a range is accounted for.
func (c *check) claim(sec *elfobj.Section, lo, hi uint64, what string) {
	if c.silent {
		return
	}
	c.claims[sec] = append(c.claims[sec], claim{lo: lo, hi: hi, what: what})
}

// pieceID is a piece of a unit.
type pieceID struct {
	u *unit
	p *elfdiff.Piece // of u.view
}
