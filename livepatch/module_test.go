package livepatch

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

// moduleFile is a livepatch module without tables, as its bytes.
func moduleFile(t *testing.T, info ...string) []byte {
	t.Helper()
	note := &elfobj.Section{Name: ".note.gnu.build-id", Type: elf.SHT_NOTE, Flags: elf.SHF_ALLOC, Align: 4,
		Data: []byte("\x04\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd")}
	modinfo := &elfobj.Section{Name: ".modinfo", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 1, Data: []byte(strings.Join(info, "\x00") + "\x00")}
	for _, s := range []*elfobj.Section{note, modinfo} {
		s.Size = uint64(len(s.Data))
	}
	data, err := (&elfobj.Object{Type: elf.ET_REL, Machine: elf.EM_X86_64, Sections: []*elfobj.Section{note, modinfo}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestOpen(t *testing.T) {
	plain := moduleFile(t, "name=livepatch_a", "livepatch=Y", "vermagic=6.12.0-test SMP mod_unload ", "depends=llc,stp")
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name               string
		data               []byte
		signed, compressed bool
	}{
		{"plain", plain, false, false},
		{"signed", append(bytes.Clone(plain), "PKCS#7~Module signature appended~\n"...), true, false},
		{"compressed", packed.Bytes(), false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.ko")
			if err := os.WriteFile(path, tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			m, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if m.Name != "livepatch_a" || m.Release() != "6.12.0-test" || m.BuildID != "abcd" || m.Signed != tt.signed || m.compressed != tt.compressed {
				t.Errorf("%+v", m)
			}
			if d := cmp.Diff([]string{"llc", "stp"}, m.Depends()); d != "" {
				t.Error(d)
			}
		})
	}
}

// What is no livepatch for this machine is refused with what it is.
func TestOpenRefuses(t *testing.T) {
	good := moduleFile(t, "name=livepatch_a", "livepatch=Y")
	foreign, big := bytes.Clone(good), bytes.Clone(good)
	foreign[18] = byte(elf.EM_AARCH64)
	big[5], big[18], big[19] = byte(elf.ELFDATA2MSB), 0, byte(elf.EM_S390)
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"garbage", []byte("#!/bin/sh\n"), "not an ELF file"},
		{"empty", nil, "not an ELF file: it is empty"},
		{"truncated", good[:len(good)/2], "section"},
		{"magic only", []byte(elf.ELFMAG), "ELF"},
		{"other machine", foreign, "made for another machine: EM_AARCH64, not EM_X86_64"},
		{"other byte order", big, "made for another machine: EM_S390, not EM_X86_64"},
		{"no livepatch", moduleFile(t, "name=dummy"), "dummy is a module, but not a livepatch module"},
		{"no name", moduleFile(t, "license=GPL"), ".modinfo holds 0 names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, tt.name)
			if err := os.WriteFile(path, tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}
