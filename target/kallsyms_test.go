package target

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// layoutsUnderTest lists what Linux 6.1 to 7.x writes.
func layoutsUnderTest() []encoder {
	return []encoder{
		{order: order61, meaning: offsetPercpu},
		{order: order61, meaning: offsetPlain},
		{order: order62, meaning: offsetPercpu},
		{order: order62, meaning: offsetPlain},
		{order: order64, meaning: offsetPercpu},
		{order: order64, meaning: offsetPlain},
		{order: order7x, meaning: offsetPlace},
	}
}

func (e encoder) String() string {
	return [...]string{"6.1", "6.2", "6.4", "7.x"}[e.order] + " " + e.meaning.String()
}

func TestKallsyms(t *testing.T) {
	for _, e := range layoutsUnderTest() {
		for _, n := range []int{1, 5, 251, 252, 253, 254, 255, 256, 509, 1000} {
			t.Run(fmt.Sprintf("%s/%d", e, n), func(t *testing.T) {
				e := e
				want := kernelSymbols(n, e.meaning == offsetPercpu)
				im := tablesImage(&e, want)
				check := func(name string) {
					table, err := im.Kallsyms()
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if diff := cmp.Diff(want, list(table)); diff != "" {
						t.Errorf("%s: symbols differ (-want +got):\n%s", name, diff)
					}
				}
				check("with the file's own symbols")
				im.tables = nil
				check("stripped")
			})
		}
	}
}

func list(t *Symtab) []Symbol {
	var all []Symbol
	for i := range t.Len() {
		all = append(all, t.At(i))
	}
	return all
}

// TestKallsymsRefusals damages one thing at a time.
func TestKallsymsRefusals(t *testing.T) {
	at := func(im *Image, name string, off int) []byte {
		s := im.Section(".rodata")
		return s.Data[int(im.tables[name]-s.Addr)+off:]
	}
	tests := []struct {
		name   string
		order  order
		damage func(im *Image)
		want   string
	}{
		{"no tables", order64, func(im *Image) { clear(im.Section(".rodata").Data) },
			"kallsyms: no token table found; is CONFIG_KALLSYMS off?"},
		{"token index", order64, func(im *Image) { at(im, "kallsyms_token_index", 100)[0]++ },
			"no token table found"},
		{"token", order64, func(im *Image) { at(im, "kallsyms_token_table", int('a'))[0] = 0x80 },
			"no token table found"},
		{"marker", order64, func(im *Image) { at(im, "kallsyms_markers", 4)[0]++ },
			"no names, markers and count before it"},
		{"count", order64, func(im *Image) { at(im, "kallsyms_num_syms", 0)[0]++ },
			"no names, markers and count before it"},
		{"name", order64, func(im *Image) { at(im, "kallsyms_names", 1)[0] = '9' },
			`symbol 0: not a kind and a name: "9__per_cpu_start"`},
		{"name length", order64, func(im *Image) { at(im, "kallsyms_names", 0)[0]++ },
			"no names, markers and count before it"},
		{"descending offsets", order64, func(im *Image) { binary.LittleEndian.PutUint32(at(im, "kallsyms_offsets", 80), 0x7fffffff) },
			"symbol 20 (sys_x585): address 0x7fffffff is below the one before"},
		{"relative base", order64, func(im *Image) { at(im, "kallsyms_relative_base", 0)[1] = 0x40 },
			"no section of code starts at _text, 0xffffffff81004000"},
		{"table by name", order64, func(im *Image) { copy(at(im, "kallsyms_seqs_of_names", 3), at(im, "kallsyms_seqs_of_names", 0)[:3]) },
			"table of symbols by name at"},
		{"table by name, range", order64, func(im *Image) { at(im, "kallsyms_seqs_of_names", 0)[0] = 0xff },
			"no symbol 167"},
		{"table by name before the tokens", order62, func(im *Image) { copy(at(im, "kallsyms_seqs_of_names", 3), at(im, "kallsyms_seqs_of_names", 0)[:3]) },
			"table of symbols by name at"},
		{"outside of the image", order64, func(im *Image) { im.Sections[2].Size -= 8 },
			"(_end): 0xffffffff83000000 is outside of the image, 0xffffffff81000000 to 0xffffffff82fffff8"},
		{"own symbols disagree", order64, func(im *Image) { im.tables["kallsyms_markers"] += 8 },
			"the file's symbol table has kallsyms_markers at"},
		{"cut off", order64, func(im *Image) {
			s := im.Section(".rodata")
			s.Data = s.Data[:int(im.tables["kallsyms_offsets"]-s.Addr)+8]
		}, "below the one before"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := encoder{order: test.order, meaning: offsetPercpu}
			im := tablesImage(&e, kernelSymbols(600, true))
			test.damage(im)
			table, err := im.Kallsyms()
			if err == nil {
				t.Fatalf("%d symbols instead of an error", table.Len())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q lacks %q", err, test.want)
			}
		})
	}
}

func TestKallsymsSectionOtherThanRodata(t *testing.T) {
	e := encoder{order: order7x, meaning: offsetPlace}
	want := kernelSymbols(40, false)
	im := tablesImage(&e, want)
	im.Sections[1].Name = ".rodata.tables"
	table, err := im.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, list(table)); diff != "" {
		t.Error(diff)
	}
}

// FuzzKallsyms overwrites bytes of good tables: whatever is decoded must be
// consistent, and nothing may panic.
func FuzzKallsyms(f *testing.F) {
	for i := range layoutsUnderTest() {
		f.Add(uint8(i), uint16(0), []byte{})
		f.Add(uint8(i), uint16(100), []byte{0xff, 0, 1})
	}
	type made struct {
		data  []byte // of .rodata
		start int    // of the tables
	}
	var images []made
	for _, e := range layoutsUnderTest() {
		im := tablesImage(&e, kernelSymbols(300, e.meaning == offsetPercpu))
		images = append(images, made{im.Section(".rodata").Data, int(e.addr - testRodata)})
	}
	f.Fuzz(func(t *testing.T, which uint8, off uint16, patch []byte) {
		m := images[int(which)%len(images)]
		e := layoutsUnderTest()[int(which)%len(images)]
		im := tablesImage(&e, kernelSymbols(1, false))
		im.tables = nil
		data := slices.Clone(m.data)
		copy(data[m.start+int(off)%(len(data)-m.start):], patch)
		im.Sections[1].Data = data
		table, err := im.Kallsyms()
		if err != nil {
			return
		}
		for i := range table.Len() {
			s := table.At(i)
			if !validName([]byte(s.Name)) || i > 0 && s.Addr < table.At(i-1).Addr {
				t.Fatalf("symbol %d is not valid: %+v", i, s)
			}
			if !slices.Contains(table.Named(s.Name), i) || !slices.Contains(table.AtAddr(s.Addr), i) {
				t.Fatalf("symbol %d is not found again: %+v", i, s)
			}
		}
	})
}
