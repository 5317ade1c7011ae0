package livetest

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfobj"
)

// makeModule encodes a module that holds nothing but .modinfo.
func makeModule(t *testing.T, info ...string) []byte {
	t.Helper()
	text := strings.Join(info, "\x00") + "\x00"
	obj := &elfobj.Object{
		Type: elf.ET_REL, Machine: elf.EM_X86_64,
		Sections: []*elfobj.Section{{
			Name: ".modinfo", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 1,
			Data: []byte(text), Size: uint64(len(text)),
		}},
	}
	data, err := obj.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseModule(t *testing.T) {
	data := makeModule(t, "license=GPL", "softdep=pre: crc32c  sha256 post: late", "depends=b-1,c", "softdep=post: x pre: y", "name=m")
	got, err := parseModule(data)
	if err != nil {
		t.Fatal(err)
	}
	want := &module{name: "m", data: data, depends: []string{"b-1", "c"}, soft: []string{"crc32c", "sha256", "y"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(module{})); d != "" {
		t.Error(d)
	}
}

func TestReadModuleRefuses(t *testing.T) {
	noInfo, err := (&elfobj.Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"not ELF", []byte("hello"), "elf"},
		{"no .modinfo", noInfo, "not a kernel module: no .modinfo section"},
		{"no name", makeModule(t, "license=GPL"), `.modinfo: "" is not a module name`},
		{"bad name", makeModule(t, "name=../x"), `.modinfo: "../x" is not a module name`},
		{"bad compression", []byte("\x1f\x8bxxxxxxxxxx"), "decompress gzip: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.ko")
			if err := os.WriteFile(path, tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := readModule(path)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	all := func() *modules {
		return &modules{byName: map[string]*module{
			"plain":   {name: "plain"},
			"top":     {name: "top", depends: []string{"left", "right"}},
			"left":    {name: "left", depends: []string{"bottom"}},
			"right":   {name: "right", depends: []string{"bottom", "dm-mod"}},
			"bottom":  {name: "bottom"},
			"dm_mod":  {name: "dm_mod"},
			"soft":    {name: "soft", soft: []string{"none", "plain", "softer"}},
			"softer":  {name: "softer", soft: []string{"soft"}},
			"lonely":  {name: "lonely", depends: []string{"none"}},
			"circle1": {name: "circle1", depends: []string{"circle2"}},
			"circle2": {name: "circle2", depends: []string{"circle1"}},
		}}
	}
	tests := []struct {
		name string
		want []string
		err  string
	}{
		{"plain", []string{"plain"}, ""},
		{"top", []string{"bottom", "left", "dm_mod", "right", "top"}, ""},
		{"dm-mod", []string{"dm_mod"}, ""},
		{"soft", []string{"plain", "softer", "soft"}, ""},
		{"none", nil, "module none not found (leave it out if it is built into the kernel)"},
		{"lonely", nil, "module none not found, which lonely needs"},
		{"circle1", nil, "modules depend on each other: circle1, circle2, circle1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := all().order(tt.name)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("got %v, want %s", err, tt.err)
			}
		})
	}
}

func TestFindModuleIn(t *testing.T) {
	dir := t.TempDir()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(makeModule(t, "name=dm_mod")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		"kernel/drivers/md/dm-mod.ko.gz": packed.Bytes(),
		"kernel/net/veth.ko.xz":          nil,
		"kernel/net/veth.ko":             makeModule(t, "name=veth"),
		"kernel/net/wrong.ko":            makeModule(t, "name=right"),
		"updates/z.ko.zst":               nil,
		"kernel/a.ko.zst":                nil,
		"updates/a.ko.zst":               nil,
		"kernel/veth.ko.txt":             nil,
		".git/hidden.ko":                 nil,
	} {
		path = filepath.Join(dir, "real", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	find, err := FindModuleIn(filepath.Join(dir, "link"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, want string }{
		{"dm_mod", "kernel/drivers/md/dm-mod.ko.gz"},
		{"dm-mod", "kernel/drivers/md/dm-mod.ko.gz"},
		{"veth", "kernel/net/veth.ko"},
		{"z", "updates/z.ko.zst"},
		{"a", "kernel/a.ko.zst"},
		{"hidden", ""},
	}
	for _, tt := range tests {
		got, ok := find(tt.name)
		want := ""
		if tt.want != "" {
			want = filepath.Join(dir, "real", tt.want)
		}
		if got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v", tt.name, got, ok)
		}
	}
	if _, err := FindModuleIn(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there gives no error")
	}

	all, err := newModules(nil, find)
	if err != nil {
		t.Fatal(err)
	}
	if order, err := all.order("dm-mod"); err != nil || !cmp.Equal(order, []string{"dm_mod"}) {
		t.Errorf("got %q, %v", order, err)
	}
	if _, err := all.order("wrong"); err == nil || !strings.HasSuffix(err.Error(), "it holds the module right, not wrong") {
		t.Errorf("got %v", err)
	}
	veth := filepath.Join(dir, "real/kernel/net/veth.ko")
	if _, err := newModules([]string{veth, veth}, nil); err == nil || !strings.HasSuffix(err.Error(), "a module veth was given already") {
		t.Errorf("got %v", err)
	}
}
