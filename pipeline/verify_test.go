package pipeline

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/verify"
)

// built is a module and what it is compared with.
type built struct {
	module []byte
	inputs verify.Inputs
}

// buildModule runs the steps of a build for a stock kernel.
func buildModule(t *testing.T, release, patch string) built {
	t.Helper()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := OpenKernel(t.Context(), KernelOptions{Kernel: "debian:" + release, Cache: cache}, Events{})
	if err != nil {
		t.Fatal(err)
	}
	o := BuildOptions{Patches: []string{patch}, Output: filepath.Join(t.TempDir(), "out.ko"), Cache: cache, CacheSize: DefaultCacheSize, Jobs: 2}
	b, err := newBuilder(k, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.nameModule(); err != nil {
		t.Fatal(err)
	}
	if b.work, err = openWork(k, o, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.work.close() })
	b.cache = newCompileCache(k, o.Cache, o.CacheSize, false, b.note)
	if err := b.runSteps(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	in, err := b.verifyInputs(t.Context(), b.target, b.linked)
	if err != nil {
		t.Fatal(err)
	}
	return built{b.linked.Module, in}
}

// verifier makes the proofs without the check of the build ID, which any change
// breaks.
func (b built) verifier(t *testing.T) *verify.Verifier {
	t.Helper()
	v, err := verify.New(b.inputs)
	if err != nil {
		t.Fatal(err)
	}
	v.NoIntegrity = true
	return v
}

// TestMutatedModules alters modules in one place at a time: every relocation in
// its target, addend, type and offset, every byte that is loaded, and every
// livepatch symbol. Each must be caught by the proofs themselves.
func TestMutatedModules(t *testing.T) {
	releases := strings.Fields(os.Getenv("KLPC_E2E_KERNELS"))
	if len(releases) == 0 {
		t.Skip("KLPC_E2E_KERNELS names no prepared stock kernels")
	}
	// Alternatives and exception tables; static branches, static calls and bug
	// tables; several objects, one of them a module, with callbacks.
	patches := []string{"user-access", "tracepoint", "callbacks"}
	if only := os.Getenv("KLPC_VERIFY_PATCHES"); only != "" {
		patches = strings.Fields(only)
	}
	for _, release := range releases {
		for _, patch := range patches {
			t.Run(release+"/"+patch, func(t *testing.T) {
				checkMutations(t, buildModule(t, release, filepath.Join("../testdata/patches", patch+".patch")))
			})
		}
	}
}

// mutation is one altered module.
type mutation struct {
	what string
	data []byte
}

func checkMutations(t *testing.T, b built) {
	r := b.verifier(t).Module(b.module)
	if r.Verdict != verify.Verified {
		t.Fatalf("the module as it was built is %s: %+v", r.Verdict, r.Findings)
	}
	work := make(chan mutation, 64)
	var wg sync.WaitGroup
	var mu sync.Mutex
	missed, tried := 0, map[string]int{}
	for range runtime.GOMAXPROCS(0) {
		v := b.verifier(t)
		wg.Go(func() {
			for m := range work {
				r := v.Module(m.data)
				mu.Lock()
				kind, _, _ := strings.Cut(m.what, " ")
				tried[kind]++
				if r.Verdict != verify.Failed {
					if missed++; missed <= 40 {
						t.Errorf("not caught: %s", m.what)
					}
				}
				mu.Unlock()
			}
		})
	}
	mutate(t, b.module, func(m mutation) { work <- m })
	close(work)
	wg.Wait()
	t.Logf("altered: %v, not caught: %d", tried, missed)
	if tried["relocation"] < 100 || tried["byte"] < 100 {
		t.Errorf("only %v were tried", tried)
	}
}

// mutate makes the altered modules.
func mutate(t *testing.T, module []byte, f func(mutation)) {
	e, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	change := func(off uint64, b []byte, format string, args ...any) {
		data := bytes.Clone(module)
		copy(data[off:], b)
		if !bytes.Equal(data, module) {
			f(mutation{fmt.Sprintf(format, args...), data})
		}
	}
	step := uint64(1)
	if all := loadedBytes(e); os.Getenv("KLPC_TEST_ALL") == "" && all > mostBytes {
		step = all/mostBytes + 1
	}
	for _, s := range e.Sections {
		switch {
		case s.Type == elf.SHT_RELA:
			mutateRelocs(module, e, s, syms, change)
		case alters(s):
			for i := uint64(0); i < s.Size; i += step {
				change(s.Offset+i, []byte{module[s.Offset+i] ^ 1<<(i%8)}, "byte %#x of %s", i, s.Name)
			}
		case s.Type == elf.SHT_SYMTAB:
			mutateSymbols(module, e, s, syms, change)
		}
	}
}

// mostBytes bounds how many bytes of a module are altered, unless everything is
// wanted (KLPC_TEST_ALL): then larger modules are altered at every n-th byte.
const mostBytes = 3000

// alters tells whether every byte of a section matters.
func alters(s *elf.Section) bool {
	return s.Flags&elf.SHF_ALLOC != 0 && s.Type == elf.SHT_PROGBITS && s.Name != ".modinfo" && s.Name != ".orc_header"
}

func loadedBytes(e *elf.File) uint64 {
	var n uint64
	for _, s := range e.Sections {
		if alters(s) {
			n += s.Size
		}
	}
	return n
}

// mutateRelocs alters each relocation of a section in each way.
func mutateRelocs(module []byte, e *elf.File, s *elf.Section, syms []elf.Symbol, change func(uint64, []byte, string, ...any)) {
	const size, offField, typeField, symField, addendField = 24, 0, 8, 12, 16
	le := binary.LittleEndian
	u64 := func(v uint64) []byte { return le.AppendUint64(nil, v) }
	u32 := func(v uint32) []byte { return le.AppendUint32(nil, v) }
	for i := uint64(0); i < s.Size; i += size {
		at := s.Offset + i
		rec := module[at : at+size]
		off, typ, sym, addend := le.Uint64(rec), le.Uint32(rec[typeField:]), le.Uint32(rec[symField:]), le.Uint64(rec[addendField:])
		where := fmt.Sprintf("relocation %d of %s", i/size, s.Name)
		// Each in turn, so that every relocation sees a few and all are used.
		n := int(i / size)
		for _, d := range some([]int64{1, -1, 4, -4, 8, 16}, n, 2) {
			change(at+addendField, u64(addend+uint64(d)), "%s: addend %+d", where, d)
		}
		for _, d := range some([]int64{1, -1, 4, 8}, n, 1) {
			change(at+offField, u64(off+uint64(d)), "%s: offset %+d", where, d)
		}
		for _, to := range some([]elf.R_X86_64{elf.R_X86_64_NONE, elf.R_X86_64_64, elf.R_X86_64_PC32, elf.R_X86_64_PLT32, elf.R_X86_64_32, elf.R_X86_64_32S, elf.R_X86_64_PC64}, n, 2) {
			change(at+typeField, u32(uint32(to)), "%s: type %v instead of %v", where, to, elf.R_X86_64(typ))
		}
		tried, symbols := 0, 2
		if os.Getenv("KLPC_TEST_ALL") != "" {
			symbols = 8
		}
		for d := uint32(1); d < uint32(len(syms)) && tried < symbols; d++ {
			to := (sym+d*d-1)%uint32(len(syms)) + 1
			if !sameSymbol(syms, sym, to) {
				change(at+symField, u32(to), "%s: symbol %q (%d) instead of %q (%d)", where, syms[to-1].Name, to, syms[sym-1].Name, sym)
				tried++
			}
		}
	}
}

// some returns n of a list, others at each turn; all of them if everything is
// wanted.
func some[T any](all []T, turn, n int) []T {
	if os.Getenv("KLPC_TEST_ALL") != "" {
		return all
	}
	var out []T
	for i := range n {
		out = append(out, all[(turn*n+i)%len(all)])
	}
	return out
}

// sameSymbol tells whether two entries of the symbol table mean one place.
func sameSymbol(syms []elf.Symbol, a, b uint32) bool {
	if a == b {
		return true
	}
	x, y := syms[a-1], syms[b-1]
	defined := x.Section != elf.SHN_UNDEF && x.Section < elf.SHN_LORESERVE
	return defined && x.Section == y.Section && x.Value == y.Value
}

// mutateSymbols alters each livepatch symbol, in name, value, size and kind, and
// the size of each function.
func mutateSymbols(module []byte, e *elf.File, s *elf.Section, syms []elf.Symbol, change func(uint64, []byte, string, ...any)) {
	const size, infoField, shndxField, valueField, sizeField = 24, 4, 6, 8, 16
	names := e.Sections[s.Link].Offset
	for i, sym := range syms {
		at := s.Offset + uint64(i+1)*size
		if elf.ST_TYPE(sym.Info) == elf.STT_FUNC && sym.Section != elf.SHN_UNDEF && !strings.HasPrefix(sym.Name, "__pfx_") {
			change(at+sizeField, []byte{module[at+sizeField] + 1}, "symbol %s: size", sym.Name)
		}
		if sym.Section != elf.SectionIndex(elfobj.SHNLivepatch) {
			continue
		}
		change(at+valueField, []byte{8}, "symbol %s: value", sym.Name)
		change(at+sizeField, []byte{8}, "symbol %s: size", sym.Name)
		change(at+infoField, []byte{sym.Info | byte(elf.STT_FUNC)}, "symbol %s: type", sym.Name)
		change(at+shndxField, []byte{0, 0}, "symbol %s: undefined", sym.Name)
		const other = ".klp.sym.vmlinux._text,0\x00"
		name := names + uint64(binary.LittleEndian.Uint32(module[at:]))
		if len(sym.Name) >= len(other)-1 {
			change(name, []byte(other), "symbol %s: another one that the kernel has", sym.Name)
		}
		for j := range uint64(len(sym.Name)) {
			change(name+j, []byte{module[name+j] ^ 1}, "symbol %s: letter %d", sym.Name, j)
		}
	}
}
