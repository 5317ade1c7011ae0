package target

import (
	"debug/elf"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	localFunc = byte(elf.STB_LOCAL)<<4 | byte(elf.STT_FUNC)
	localFile = byte(elf.STB_LOCAL)<<4 | byte(elf.STT_FILE)
	localSec  = byte(elf.STB_LOCAL)<<4 | byte(elf.STT_SECTION)
	globFunc  = byte(elf.STB_GLOBAL)<<4 | byte(elf.STT_FUNC)
)

// moduleFile is a module with one name in every kind of place. Sections by
// index: 1 .text, 2 .init.text, 3 .modinfo, 4 .data..percpu, 5 .exit.text,
// 6 .comment.
func moduleFile(t testing.TB, modinfo string) []byte {
	code := elf.SHF_ALLOC | elf.SHF_EXECINSTR
	return elfFile(t, elf.ET_REL, []elfSection{
		{name: ".text", typ: elf.SHT_PROGBITS, flags: code, data: noise(64)},
		{name: ".init.text", typ: elf.SHT_PROGBITS, flags: code, data: noise(64)},
		{name: ".modinfo", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC, data: []byte(modinfo)},
		{name: ".data..percpu", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_WRITE, data: noise(64)},
		{name: ".exit.text", typ: elf.SHT_PROGBITS, flags: code, data: noise(64)},
		{name: ".comment", typ: elf.SHT_PROGBITS, data: []byte("x\x00")},
	}, []elfSymbol{
		{"", 1, localSec, 0},
		{"late_init", 1, localFunc, 0}, // first in both tables
		{"late_init", 2, localFunc, 0},
		{"early_init", 2, localFunc, 8},
		{"early_init", 1, localFunc, 8}, // second, then first
		{"show", 1, localFunc, 16},
		{"show", 1, localFunc, 24},
		{"show", 5, localFunc, 24}, // kept: the module can be unloaded
		{"percpu", 4, localFunc, 0},
		{"percpu", 1, localFunc, 0},
		{"file", elf.SHN_ABS, localFile, 0},
		{"file", 1, localFunc, 32},
		{"comment", 6, localFunc, 0},
		{"comment", 1, localFunc, 32},
		{"tag", 3, localFunc, 0},
		{"tag", 1, localFunc, 32},
		{"unique", 1, localFunc, 40},
		{"only_init", 2, localFunc, 16},
		{"undefined", elf.SHN_UNDEF, globFunc, 0},
		{"unique", elf.SHN_UNDEF, globFunc, 0}, // not counted
	})
}

const testModinfo = "license=GPL\x00\x00\x00depends=mbcache,jbd2\x00import_ns=A\x00import_ns=B\x00flag\x00name=ext4\x00vermagic=6.1.0 SMP mod_unload \x00"

func TestReadModule(t *testing.T) {
	plain := moduleFile(t, testModinfo)
	inputs := map[string][]byte{"plain": plain, "signed": append(append([]byte{}, plain...), "~Module signature appended~\n"...)}
	for _, name := range []string{"gzip", "xz", "zstd"} {
		inputs[name] = packers(t)[name](plain)
	}
	for name, data := range inputs {
		t.Run(name, func(t *testing.T) {
			m, err := ReadModule(data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Name != "ext4" {
				t.Errorf("name %q", m.Name)
			}
			want := []Tag{{"license", "GPL"}, {"depends", "mbcache,jbd2"}, {"import_ns", "A"}, {"import_ns", "B"},
				{"flag", ""}, {"name", "ext4"}, {"vermagic", "6.1.0 SMP mod_unload "}}
			if diff := cmp.Diff(want, m.Info); diff != "" {
				t.Errorf("modinfo (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"A", "B"}, m.Modinfo("import_ns")); diff != "" {
				t.Errorf("import_ns: %s", diff)
			}
		})
	}
}

func TestModuleSympos(t *testing.T) {
	m, err := ReadModule(moduleFile(t, testModinfo))
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		Section   string
		Pos       int
		Ambiguous bool
	}
	for _, test := range []struct {
		name string
		want []result
	}{
		{"late_init", []result{{".text", 1, false}, {".init.text", 2, true}}},
		{"early_init", []result{{".init.text", 1, true}, {".text", 2, true}}},
		{"show", []result{{".text", 1, false}, {".text", 2, false}, {".exit.text", 3, false}}},
		{"percpu", []result{{".data..percpu", 1, false}, {".text", 2, false}}},
		{"file", []result{{"", 1, true}, {".text", 2, true}}},
		{"comment", []result{{".comment", 1, true}, {".text", 2, true}}},
		{"tag", []result{{".modinfo", 1, true}, {".text", 2, true}}},
		{"unique", []result{{".text", 0, false}}},
		{"only_init", []result{{".init.text", 1, true}}},
		{"undefined", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []result
			for _, s := range m.Named(test.name) {
				pos, ambiguous := m.Sympos(s)
				r := result{Pos: pos, Ambiguous: ambiguous}
				if s.Section != nil {
					r.Section = s.Section.Name
				}
				got = append(got, r)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, s := range m.Object.Symbols {
		if s.Undefined() {
			if pos, ambiguous := m.Sympos(s); pos != 0 || !ambiguous {
				t.Errorf("undefined %s: %d, %v", s.Name, pos, ambiguous)
			}
		}
	}
}

func TestReadModuleRefusals(t *testing.T) {
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"text", []byte("hello"), "read module: "},
		{"kernel", vmlinuxFile(t, bootable()), "type ET_EXEC is not a module"},
		{"object", elfFile(t, elf.ET_REL, nil, nil), "no .modinfo section: not a kernel module"},
		{"no name", moduleFile(t, "license=GPL\x00"), ".modinfo holds 0 names instead of 1"},
		{"empty name", moduleFile(t, "name=\x00"), ".modinfo holds 1 name instead of 1"},
		{"two names", moduleFile(t, "name=a\x00name=b\x00"), ".modinfo holds 2 names instead of 1"},
		{"truncated", packers(t)["xz"](moduleFile(t, testModinfo))[:200], "read module: decompress xz: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ReadModule(test.data); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}
