package target

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const symvers = "0x4c9d28b0\tphys_base\tvmlinux\tEXPORT_SYMBOL\t\n" +
	"0xd6551b9c\tcpu_cache\tvmlinux\tEXPORT_SYMBOL_GPL\tDEVMEM\n" +
	"0x00000000\tjbd2_log\tfs/jbd2/jbd2\tEXPORT_SYMBOL\t\n"

func TestReadSymvers(t *testing.T) {
	exports, err := ReadSymvers(strings.NewReader(symvers))
	if err != nil {
		t.Fatal(err)
	}
	var got []Export
	for i := range exports.Len() {
		got = append(got, exports.At(i))
	}
	want := []Export{
		{Name: "phys_base", CRC: 0x4c9d28b0, Module: "vmlinux"},
		{Name: "cpu_cache", CRC: 0xd6551b9c, Module: "vmlinux", GPL: true, Namespace: "DEVMEM"},
		{Name: "jbd2_log", Module: "fs/jbd2/jbd2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exports (-want +got):\n%s", diff)
	}
	if x, ok := exports.Lookup("cpu_cache"); !ok || x != want[1] {
		t.Errorf("Lookup: %+v, %v", x, ok)
	}
	if _, ok := exports.Lookup("absent"); ok {
		t.Error("Lookup finds what is not there")
	}
}

func TestReadSymversRefusals(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"fields", "0x1\ta\tvmlinux\tEXPORT_SYMBOL\n", `line 1: 4 fields instead of 5: "0x1\ta\tvmlinux\tEXPORT_SYMBOL"`},
		{"checksum", "12\ta\tvmlinux\tEXPORT_SYMBOL\t\n", `line 1: not a checksum: "12"`},
		{"long checksum", "0x123456789\ta\tvmlinux\tEXPORT_SYMBOL\t\n", `not a checksum`},
		{"name", "0x1\t\tvmlinux\tEXPORT_SYMBOL\t\n", `not a symbol name: ""`},
		{"module", "0x1\ta\t\tEXPORT_SYMBOL\t\n", `a: no module`},
		{"kind", "0x1\ta\tvmlinux\tEXPORT_UNUSED_SYMBOL\t\n", `a: unknown kind of export "EXPORT_UNUSED_SYMBOL"`},
		{"twice", symvers + "0x1\tphys_base\tdrivers/x\tEXPORT_SYMBOL\t\n", "line 4: phys_base is already exported by vmlinux"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ReadSymvers(strings.NewReader(test.text))
			if err == nil || !strings.HasPrefix(err.Error(), "read Module.symvers: line ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func FuzzSymvers(f *testing.F) {
	f.Add(symvers)
	f.Fuzz(func(t *testing.T, text string) {
		exports, err := ReadSymvers(strings.NewReader(text))
		if err != nil {
			return
		}
		for i := range exports.Len() {
			if x, ok := exports.Lookup(exports.At(i).Name); !ok || x != exports.At(i) {
				t.Fatalf("export %d is not found again", i)
			}
		}
	})
}
