package elfdiff

// Nothing may change unseen in real objects either: modules of a stock kernel
// are relocatable objects with every construct that the kernel's own macros and
// objtool make. What may differ is listed here by name, apart from the code
// that is tested.

import (
	"bytes"
	"debug/elf"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/klpc/klpc/elfobj"
)

// free are sections of which a change means nothing to a livepatch: objtool and
// the linker make them from code or for a whole module, or they only inform.
var free = regexp.MustCompile(`^(\.orc_unwind|\.orc_unwind_ip|\.orc_header|\.return_sites|\.retpoline_sites|\.call_sites|\.ibt_endbr_seal` +
	`|\.static_call_sites|\.smp_locks|\.modinfo|\.note\..*|\.comment|\.BTF.*|__mcount_loc|__patchable_function_entries` +
	`|_?__ksymtab.*|_?__kcrctab.*|\.export_symbol|\.printk_index|\.discard\..*|\.debug_.*|__versions|\.gnu\.linkonce\.this_module)$`)

// mutable is a place that may be changed and the change undone.
type mutable struct {
	what string
	do   func()
	undo func()
}

// places returns the bytes and relocations of an object that count.
func places(v *View, o *elfobj.Object) []mutable {
	var out []mutable
	for i, s := range v.Obj.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || free.MatchString(s.Name) || v.kinds[s] == Strings || v.kinds[s] == Constants {
			continue
		}
		d := o.Sections[i].Data
		for off := range uint64(len(s.Data)) {
			if !forgiven(v, s, off) && !unread(v, s, off) {
				flip := func() { d[off] ^= 0x10 }
				out = append(out, mutable{s.Name + " byte", flip, flip})
			}
		}
	}
	for _, s := range o.Sections {
		if s.Target == nil || s.Target.Flags&elf.SHF_ALLOC == 0 || free.MatchString(s.Target.Name) {
			continue
		}
		for i := range s.Relocs {
			r := &s.Relocs[i]
			if s.Target.Name == "__bug_table" && isBugFile(s, i) || unread(v, v.Obj.Sections[slices.Index(o.Sections, s.Target)], r.Off) {
				continue
			}
			old := *r
			out = append(out,
				mutable{s.Name + " addend", func() { r.Addend += 3 }, func() { *r = old }},
				mutable{s.Name + " symbol", func() { r.Sym = &elfobj.Symbol{Name: "elsewhere", Bind: elf.STB_GLOBAL} }, func() { *r = old }})
		}
	}
	return out
}

// unread tells whether a place is that of a macro's variable that no code of the
// object reads: a record of the printk index.
func unread(v *View, s *elfobj.Section, off uint64) bool {
	p := v.at(s, off)
	return p != nil && p.key.bookkeeping() && len(p.users) == 0
}

func TestStockModules(t *testing.T) {
	dir := os.Getenv("KLPC_TEST_KO_DIR")
	if dir == "" {
		t.Skip("needs KLPC_TEST_KO_DIR, the modules of a stock kernel")
	}
	const samples = 400
	for _, name := range []string{"drivers/net/dummy", "drivers/net/veth", "fs/binfmt_misc"} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data := readModule(t, filepath.Join(dir, name+".ko.xz"))
			orig, patched := parse(t, data), parse(t, slices.Clone(data))
			if r := compare(t, orig, patched); r.Verdict != Unchanged {
				t.Fatalf("differs from itself:\n%s", render(r))
			}
			mutateSome(t, orig, patched, samples)
		})
	}
}

// nothingUnseen changes a few places of an object that equals itself.
func nothingUnseen(t *testing.T, data []byte) {
	t.Helper()
	orig, patched := parse(t, data), parse(t, slices.Clone(data))
	if compare(t, orig, patched).Verdict == Unchanged {
		mutateSome(t, orig, patched, 8)
	}
}

// mutateSome changes n places of an object, one at a time: none may pass as the
// same.
func mutateSome(t *testing.T, orig, patched *elfobj.Object, n int) {
	t.Helper()
	v, err := NewView(orig)
	if err != nil {
		t.Fatal(err)
	}
	all := places(v, patched)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range min(n, len(all)) {
		m := all[rnd.IntN(len(all))]
		m.do()
		if compare(t, orig, patched).Verdict == Unchanged {
			t.Errorf("%s may change unseen", m.what)
		}
		m.undo()
	}
}

func readModule(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := xz.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return data
}
