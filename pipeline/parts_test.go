package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/distro"
)

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// symbols is a list of symbols, as long as it must be.
const symbols = "ffffffff81000000 T _text\nffffffff81000000 T startup_64\nffffffff81001000 B _end\n"

// bzHeader makes as much of a bzImage as its first sectors say; the version
// string lies at the given offset less 0x200, 0 for none.
func bzHeader(offset uint16, version string) []byte {
	b := make([]byte, 0x4000)
	copy(b[bzMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[bzKernelVersion:], offset)
	copy(b[int(offset)+bzVersionBase:], version)
	return b
}

// vmlinux links an executable that holds a text where the kernel has its banner.
func vmlinux(t *testing.T, text string) []byte {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "v.c")
	if err := os.WriteFile(source, []byte(fmt.Sprintf("const char linux_banner[] = %q;\nvoid _start(void) {}\n", text)), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "vmlinux")
	if msg, err := exec.Command("gcc", "-nostdlib", "-static", "-o", out, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadImageFacts(t *testing.T) {
	const proc = "%s version %s" // the kernel's own format strings are no banner
	tests := []struct {
		name string
		data []byte
		want imageFacts
		err  string
	}{
		{"bzImage", bzHeader(0x3000, "6.12.117+deb12-cloud-amd64 (a@b) #1 SMP"), imageFacts{release: "6.12.117+deb12-cloud-amd64", boots: true}, ""},
		{"bzImage without version", bzHeader(0, ""), imageFacts{boots: true}, ""},
		{"bzImage with a bad offset", bzHeader(0x3000, "6.12")[:0x3100], imageFacts{boots: true}, ""},
		{"vmlinux", vmlinux(t, "Linux version 6.1.170-mine (a@b) (gcc 12) #1"), imageFacts{release: "6.1.170-mine"}, ""},
		{"vmlinux without banner", vmlinux(t, proc), imageFacts{}, ""},
		{"System.map", []byte(symbols), imageFacts{list: true}, ""},
		{"kallsyms without addresses", []byte(strings.ReplaceAll(symbols, "ffffffff81", "0000000000")), imageFacts{list: true}, ""},
		{"part of a System.map", []byte("ffffffff81000000 T _text\n"), imageFacts{}, "not the whole table of a kernel"},
		{"stub of a System.map", []byte("ffffffffffffffff B The real System.map is in the linux-image-x-dbg package\n"), imageFacts{}, "this is Debian's placeholder, it holds no symbols; use the vmlinuz"},
		{"text", []byte("hello\n"), imageFacts{}, "--image takes a vmlinux, vmlinuz, System.map or a dump of /proc/kallsyms"},
		{"empty", nil, imageFacts{}, "--image takes a vmlinux, vmlinuz, System.map or a dump of /proc/kallsyms"},
		{"truncated vmlinux", vmlinux(t, proc)[:1000], imageFacts{}, "read kernel image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readImageFacts(writeFile(t, "image", tt.data))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestPartsRelease(t *testing.T) {
	const config = "# Linux/x86 6.1.170 Kernel Configuration\nCONFIG_LOCALVERSION=\"-mine\"\n"
	tests := []struct {
		name, given, image, config string
		release, note, err         string
	}{
		{"given", "6.1.170-x", "", config, "6.1.170-x", "", ""},
		{"given and the same", "6.1.170-x", "6.1.170-x", config, "6.1.170-x", "", ""},
		{"given and another", "6.1.170-x", "6.1.170-y", config, "", "", "--release says 6.1.170-x, but I is the kernel 6.1.170-y"},
		{"image", "", "6.1.170-y", config, "6.1.170-y", "", ""},
		{"configuration", "", "", config, "6.1.170-mine", "the kernel's release is taken to be 6.1.170-mine, as the configuration has it", ""},
		{"nowhere", "", "", "CONFIG_X86=y\n", "", "", "neither I nor C says which release the kernel is: give what uname -r says there with --release"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			release, note, err := partsRelease(KernelOptions{Release: tt.given, Image: "I", Config: "C"}, imageFacts{release: tt.image}, tt.config)
			if release != tt.release || !strings.HasPrefix(note, tt.note) || (note == "") != (tt.note == "") {
				t.Errorf("%q, %q", release, note)
			}
			if fmt.Sprint(err) != tt.err && (err != nil || tt.err != "") {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}

// All parts are looked at before anything is prepared, and all that is wrong
// is said at once.
func TestPartsRefused(t *testing.T) {
	good := writeFile(t, "config", []byte("CONFIG_LIVEPATCH=y\n"))
	symvers := writeFile(t, "Module.symvers", []byte("0x00000001\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n"))
	list := writeFile(t, "System.map", []byte(symbols))
	tests := []struct {
		name string
		o    KernelOptions
		errs []string
	}{
		{"missing", KernelOptions{Source: "s", Image: "i"}, []string{"--config is missing", "--symvers is missing"}},
		{"unreadable", KernelOptions{Source: "s", Config: "/gone/c", Symvers: "/gone/s", Image: "/gone/i", Modules: "/gone/m"},
			[]string{"open /gone/c", "open /gone/s", "open /gone/i", "stat /gone/m"}},
		{"no configuration", KernelOptions{Source: "s", Config: symvers, Symvers: symvers, Image: list}, []string{symvers + " is no configuration of a kernel"}},
		{"no livepatches", KernelOptions{Source: "s", Config: writeFile(t, "c", []byte("CONFIG_X86=y\n")), Symvers: symvers, Image: list},
			[]string{"has no CONFIG_LIVEPATCH=y"}},
		{"no symbol versions", KernelOptions{Source: "s", Config: good, Symvers: list, Image: list}, []string{list + ": "}},
		{"modules in a file", KernelOptions{Source: "s", Config: good, Symvers: symvers, Image: list, Modules: list}, []string{list + " is no folder"}},
		{"no release", KernelOptions{Source: "s", Config: good, Symvers: symvers, Image: list}, []string{"--release"}},
		{"no source", KernelOptions{Source: "/gone/s", Config: good, Symvers: symvers, Image: list, Release: "6.1.0"}, []string{"source tree: lstat /gone"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Cache = t.TempDir()
			_, err := OpenKernel(t.Context(), tt.o, Events{})
			for _, want := range tt.errs {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

func TestFindModuleWithoutModules(t *testing.T) {
	k := &Kernel{Release: "6.1.0"}
	_, err := k.FindModule("dummy")
	if err == nil || !strings.Contains(err.Error(), "name their folder, such as /lib/modules/6.1.0, with --modules-dir") {
		t.Errorf("%v", err)
	}
}

// TestStockKernelFromParts takes a prepared stock kernel's own files for parts
// and builds what is built for the stock kernel.
func TestStockKernelFromParts(t *testing.T) {
	releases := strings.Fields(os.Getenv("KLPC_E2E_KERNELS"))
	if len(releases) == 0 {
		t.Skip("KLPC_E2E_KERNELS names no prepared stock kernels")
	}
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	stock, err := distro.Debian(t.Context(), releases[len(releases)-1], distro.Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	o := KernelOptions{Source: stock.Source, Config: filepath.Join(filepath.Dir(stock.Build), "config"), Symvers: stock.Symvers,
		Image: stock.BzImage, Modules: stock.ModulesDir, Cache: cache}
	k := openParts(t, o)
	if k.Release != stock.Release || k.BzImage != stock.BzImage || len(k.Warnings) > 0 {
		t.Errorf("release %s, to boot %q, warnings %q", k.Release, k.BzImage, k.Warnings)
	}
	want := buildPatch(t, openStock(t, stock.Release, cache), "cmdline.patch", nil)
	if got := buildPatch(t, k, "cmdline.patch", nil); !bytes.Equal(got, want) {
		t.Errorf("the module differs from the stock kernel's: %d bytes, %d there", len(got), len(want))
	}
	buildPatch(t, k, "module.patch", nil)
	buildPatch(t, k, "sympos.patch", nil)

	t.Run("without modules", func(t *testing.T) {
		o := o
		o.Modules = ""
		buildPatch(t, openParts(t, o), "module.patch", []string{"--modules-dir"})
	})
	t.Run("list of symbols", func(t *testing.T) {
		o := o
		o.Image, o.Release = systemMap(t, stock.BzImage), stock.Release
		k := openParts(t, o)
		if k.BzImage != "" || len(k.Warnings) != 1 || !strings.Contains(k.Warnings[0], "lists symbols only") {
			t.Errorf("to boot %q, warnings %q", k.BzImage, k.Warnings)
		}
		if got := buildPatch(t, k, "cmdline.patch", nil); !bytes.Equal(got, want) {
			t.Errorf("the module differs from the stock kernel's: %d bytes, %d there", len(got), len(want))
		}
		buildPatch(t, k, "sympos.patch", []string{"does not tell which of them this is; give vmlinux or vmlinuz with --image"})
	})
}

func openParts(t *testing.T, o KernelOptions) *Kernel {
	t.Helper()
	k, err := OpenKernel(t.Context(), o, Events{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openStock(t *testing.T, release, cache string) *Kernel {
	t.Helper()
	return openParts(t, KernelOptions{Kernel: "debian:" + release, Cache: cache})
}

// buildPatch builds a patch of testdata and returns the module; with errs, the
// build must fail and its error or problems must say all of them.
func buildPatch(t *testing.T, k *Kernel, name string, errs []string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "livepatch.ko")
	r, err := Build(t.Context(), k, BuildOptions{Patches: []string{filepath.Join("..", "testdata", "patches", name)}, Output: out})
	if errs == nil && err != nil {
		t.Fatalf("%s: %v %+v", name, err, r)
	}
	if errs == nil {
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	said := fmt.Sprint(err)
	if errors.Is(err, ErrUnpatchable) {
		for _, p := range r.Problems {
			said += "\n" + p.Detail
		}
	}
	missing := slices.DeleteFunc(slices.Clone(errs), func(e string) bool { return strings.Contains(said, e) })
	if diff := cmp.Diff([]string{}, missing); err == nil || diff != "" {
		t.Errorf("%s: %s\nmissing: %s", name, said, diff)
	}
	return nil
}

// systemMap writes the symbols of an image as nm would.
func systemMap(t *testing.T, image string) string {
	t.Helper()
	read, err := readImage(image)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for i := range read.tab.Len() {
		s := read.tab.At(i)
		fmt.Fprintf(&b, "%016x %c %s\n", s.Addr, s.Kind, s.Name)
	}
	return writeFile(t, "System.map", b.Bytes())
}
