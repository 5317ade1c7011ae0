package target

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const systemMap = `0000000000000000 D __per_cpu_start
0000000000000040 D counter
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000010 t show
ffffffff81000020 T start
ffffffff81000020 W alias
ffffffff81000030 t show
ffffffff81000040 a constant
ffffffff81000040 T show
ffffffff82000000 B _end
`

func TestReadSystemMap(t *testing.T) {
	table, err := ReadSystemMap(strings.NewReader(systemMap))
	if err != nil {
		t.Fatal(err)
	}
	if !table.HasAddrs() {
		t.Error("no addresses")
	}
	want := []Symbol{
		{"__per_cpu_start", 0, 'D'}, {"counter", 0x40, 'D'}, {"_text", 0xffffffff81000000, 'T'},
		{"_stext", 0xffffffff81000000, 'T'}, {"show", 0xffffffff81000010, 't'}, {"start", 0xffffffff81000020, 'T'},
		{"alias", 0xffffffff81000020, 'W'}, {"show", 0xffffffff81000030, 't'},
		{"show", 0xffffffff81000040, 'T'}, {"_end", 0xffffffff82000000, 'B'},
	}
	if diff := cmp.Diff(want, list(table)); diff != "" {
		t.Errorf("symbols (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{4, 7, 8}, table.Named("show")); diff != "" {
		t.Errorf("Named: %s", diff)
	}
	if got := table.Named("absent"); got != nil {
		t.Errorf("Named of an unknown name: %v", got)
	}
	var positions []int
	for i := range table.Len() {
		positions = append(positions, table.Sympos(i))
	}
	if diff := cmp.Diff([]int{0, 0, 0, 0, 1, 0, 0, 2, 3, 0}, positions); diff != "" {
		t.Errorf("Sympos: %s", diff)
	}
	if diff := cmp.Diff([]int{5, 6}, table.AtAddr(0xffffffff81000020)); diff != "" {
		t.Errorf("AtAddr: %s", diff)
	}
	if got := table.AtAddr(0xffffffff81000021); got != nil {
		t.Errorf("AtAddr between symbols: %v", got)
	}
}

func TestContaining(t *testing.T) {
	table, err := ReadSystemMap(strings.NewReader(systemMap))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		addr  uint64
		index int
		ok    bool
	}{
		{"first byte", 0xffffffff81000010, 4, true},
		{"last byte", 0xffffffff8100001f, 4, true},
		{"first of two names", 0xffffffff81000028, 5, true},
		{"per-CPU", 0x44, 1, true},
		{"the last symbol has no bound", 0xffffffff82000000, 0, false},
		{"beyond", 0xffffffffffffffff, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			index, ok := table.Containing(test.addr)
			if index != test.index || ok != test.ok {
				t.Errorf("%d, %v instead of %d, %v", index, ok, test.index, test.ok)
			}
		})
	}
}

func TestReadSystemMapRefusals(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "no symbol _text: not the whole table of a kernel"},
		{"Debian's placeholder", "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n",
			"line 1: this is Debian's placeholder, it holds no symbols; use the vmlinuz"},
		{"cut at a line", systemMap[:strings.Index(systemMap, "ffffffff82")], "no symbol _end"},
		{"cut in a line", systemMap[:strings.Index(systemMap, "t show")+1], `not a symbol name: ""`},
		{"order", strings.Replace(systemMap, "ffffffff81000030", "ffffffff80000030", 1),
			"line 8: address 0xffffffff80000030 of show is below the one before: the order is lost"},
		{"module", systemMap + "ffffffffc0000000 t f\t[ext4]\n", "line 12: a module's symbol: this is a dump of /proc/kallsyms"},
		{"zeros", "0 T _text\n0 B _end\n", "all addresses are zero"},
		{"not hexadecimal", "zzz T _text\n", `line 1: not of the form "address kind name": "zzz T _text"`},
		{"kind", "0 TT _text\n", `not of the form "address kind name"`},
		{"blank in a name", "0 T _te xt\n", `not a symbol name: "_te xt"`},
		{"endless line", strings.Repeat("x", 1<<17), "line 1: bufio.Scanner: token too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ReadSystemMap(strings.NewReader(test.text))
			if err == nil || !strings.HasPrefix(err.Error(), "read System.map: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func TestReadKallsymsDump(t *testing.T) {
	const dump = `ffffffff9a000000 T _text
ffffffff9a000010 t show
ffffffff9a000030 t show
ffffffff9b000000 B _end
ffffffffc0201000 t show	[ext4]
ffffffffc0200000 t show	[ext4]
ffffffffc0100000 t init	[loop]
ffffffffc0000000 t bpf_prog_1234	[bpf]
`
	table, err := ReadKallsymsDump(strings.NewReader(dump))
	if err != nil {
		t.Fatal(err)
	}
	if table.Len() != 4 || !table.HasAddrs() {
		t.Errorf("%d symbols, addresses %v", table.Len(), table.HasAddrs())
	}
	if diff := cmp.Diff([]string{"ext4", "loop", "bpf"}, table.Modules()); diff != "" {
		t.Errorf("modules: %s", diff)
	}
	want := []Symbol{{"show", 0xffffffffc0201000, 't'}, {"show", 0xffffffffc0200000, 't'}}
	if diff := cmp.Diff(want, table.Module("ext4")); diff != "" {
		t.Errorf("ext4: %s", diff)
	}
	if got := table.Module("fuse"); got != nil {
		t.Errorf("fuse: %v", got)
	}
}

func TestReadKallsymsDumpWithoutAddresses(t *testing.T) {
	table, err := ReadKallsymsDump(strings.NewReader("0000000000000000 T _text\n0000000000000000 t show\n" +
		"0000000000000000 t show\n0000000000000000 B _end\n"))
	if err != nil {
		t.Fatal(err)
	}
	if table.HasAddrs() || table.AtAddr(0) != nil {
		t.Error("zeros are taken for addresses")
	}
	if _, ok := table.Containing(0); ok {
		t.Error("zeros are taken for addresses")
	}
	if got := table.Sympos(2); got != 2 {
		t.Errorf("position %d instead of 2", got)
	}
}

func TestReadKallsymsDumpRefusals(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"kernel after modules", "1 T _text\n2 t f\t[ext4]\n3 B _end\n", "line 3: a kernel symbol after those of modules"},
		{"brackets", "1 T _text\n2 t f\text4\n", `line 2: not a module name in brackets: "ext4"`},
		{"cut", "1 T _text\n", "no symbol _end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ReadKallsymsDump(strings.NewReader(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func FuzzSystemMap(f *testing.F) {
	f.Add(systemMap)
	f.Add("0 T _text\n0 B _end\n0 t f\t[m]\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func() (*Symtab, error){
			func() (*Symtab, error) { return ReadSystemMap(strings.NewReader(text)) },
			func() (*Symtab, error) { return ReadKallsymsDump(strings.NewReader(text)) },
		} {
			table, err := read()
			if err != nil {
				continue
			}
			for i := range table.Len() {
				named := table.Named(table.At(i).Name)
				pos := table.Sympos(i)
				if len(named) == 1 && pos != 0 || len(named) > 1 && (pos < 1 || named[pos-1] != i) {
					t.Fatalf("entry %d: position %d among %v", i, pos, named)
				}
			}
		}
	})
}
