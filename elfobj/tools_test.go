package elfobj

import (
	"bytes"
	"debug/elf"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// tool runs a program that must succeed and skips the test if it is missing.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s, which is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// rewrite reads a file and writes it again, unchanged, as another.
func rewrite(t *testing.T, in []byte, path string) *Object {
	t.Helper()
	o, err := Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	data, back := roundTrip(t, o)
	if d := diff(o, back); d != "" {
		t.Fatalf("read(write(x)) (-want +got):\n%s", d)
	}
	write(t, path, data)
	return o
}

// What compilers make today, not only what is committed.
func TestCompilers(t *testing.T) {
	for _, tt := range []struct {
		name, compiler, source string
		args                   []string
	}{
		{"plain", "gcc", "plain.c", []string{"-O2"}},
		{"no optimisation, debug", "gcc", "plain.c", []string{"-O0", "-g"}},
		{"compressed debug", "gcc", "plain.c", []string{"-O2", "-g", "-gz", "-fcommon"}},
		{"sections", "gcc", "plain.c", []string{"-O2", "-ffunction-sections", "-fdata-sections", "-fpatchable-function-entry=16,16"}},
		{"group", "gcc", "group.s", nil},
		{"address significance table", "clang", "plain.c", []string{"-O2", "-ffunction-sections", "-g"}},
		{"one string table for all", "clang", "group.s", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			before, after := filepath.Join(dir, "before.o"), filepath.Join(dir, "after.o")
			tool(t, tt.compiler, append(tt.args, "-c", "-o", before, "testdata/src/"+tt.source)...)
			data, err := os.ReadFile(before)
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, data, after)
			linked := filepath.Join(dir, "linked.o")
			tool(t, "ld", "-r", "-o", linked, after)
			linkedData, err := os.ReadFile(linked)
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, linkedData, filepath.Join(dir, "linked-again.o"))
			if tt.compiler == "gcc" { // clang's tables stand elsewhere, so the numbers differ
				compareReadelf(t, before, after)
			}
		})
	}
}

// Linking the rewritten object gives the same as linking the original.
func TestLinkAfterRewrite(t *testing.T) {
	for name, data := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var linked [2]*Object
			for i, input := range []string{"before.o", "after.o"} {
				path := filepath.Join(dir, input)
				if i == 0 {
					write(t, path, data)
				} else {
					rewrite(t, data, path)
				}
				tool(t, "ld", "-r", "-o", path+".linked", path)
				out, err := os.ReadFile(path + ".linked")
				if err != nil {
					t.Fatal(err)
				}
				if linked[i], err = Parse(out); err != nil {
					t.Fatal(err)
				}
			}
			if d := diff(linked[0], linked[1]); d != "" {
				t.Errorf("ld -r of the rewritten file (-want +got):\n%s", d)
			}
		})
	}
}

func TestReadelfManySections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "many.o")
	data, err := manySections(0xff00 + 100).Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, data)
	out := tool(t, "readelf", "-sW", path)
	if strings.Contains(out, "Warning") || strings.Contains(out, "Error") {
		t.Errorf("readelf complains:\n%.2000s", out)
	}
	if !strings.Contains(out, " 65380 v65379") {
		t.Errorf("readelf does not show v65379 in section 65380; its last lines:\n%s", out[max(0, len(out)-300):])
	}
}

// A no-op rewrite of real modules, which must differ only in where the parts
// lie in the file.
func TestKernelModules(t *testing.T) {
	const most = 60
	dir := os.Getenv("KLPC_TEST_KO_DIR")
	if dir == "" {
		t.Skip("needs KLPC_TEST_KO_DIR, a folder with .ko or .ko.xz files")
	}
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && (strings.HasSuffix(path, ".ko") || strings.HasSuffix(path, ".ko.xz")) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no .ko or .ko.xz files under KLPC_TEST_KO_DIR=%s", dir)
	}
	step := max(1, len(paths)/most)
	for i := 0; i < len(paths); i += step {
		t.Run(filepath.Base(paths[i]), func(t *testing.T) {
			data := readModule(t, paths[i])
			tmp := t.TempDir()
			before, after := filepath.Join(tmp, "before.o"), filepath.Join(tmp, "after.o")
			write(t, before, data)
			rewrite(t, data, after)
			compareReadelf(t, before, after)
			tool(t, "ld", "-r", "-o", filepath.Join(tmp, "linked.o"), after)
		})
	}
}

func readModule(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(path) != ".xz" {
		return data
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

// What readelf shows of where things lie in the file, and of the sizes of
// string tables, whose names ld merges by their tails.
var (
	readelfFileName  = regexp.MustCompile(`(?m)^File: .*\n`)
	readelfHeaderOff = regexp.MustCompile(`Start of section headers: +\d+|starting at offset 0x[0-9a-f]+`)
	readelfAtOffset  = regexp.MustCompile(`at offset 0x[0-9a-f]+`)
	readelfShdrOff   = regexp.MustCompile(`(?m)^(  \[ *\d+\] .*? [0-9a-f]{16}) [0-9a-f]{6,}`)
	readelfStrtab    = regexp.MustCompile(`(?m)^(  \[ *\d+\] \.(?:sh)?strtab +STRTAB +[0-9a-f]{16} OFF) [0-9a-f]{6,}`)
)

// compareReadelf compares two files as readelf sees them.
func compareReadelf(t *testing.T, before, after string) {
	t.Helper()
	var views [2][]string
	for i, path := range []string{before, after} {
		out := tool(t, "readelf", "-aW", path)
		out = readelfFileName.ReplaceAllString(out, "")
		out = readelfHeaderOff.ReplaceAllString(out, "HEADERS")
		out = readelfAtOffset.ReplaceAllString(out, "at OFF")
		out = readelfShdrOff.ReplaceAllString(out, "$1 OFF")
		out = readelfStrtab.ReplaceAllString(out, "$1 SIZE")
		views[i] = strings.Split(out, "\n")
	}
	if !slices.Equal(views[0], views[1]) {
		t.Errorf("readelf -aW after a no-op rewrite (-want +got):\n%.5000s", cmp.Diff(views[0], views[1]))
	}
}

// debug/elf is a second opinion on the symbols of the fixtures. The name of the
// section stands in Library here.
func TestAgreesWithDebugElf(t *testing.T) {
	for name, data := range fixtures(t) {
		o, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		var want, got []elf.Symbol
		for _, s := range theirs {
			s.HasVersion = false
			if int(s.Section) < len(f.Sections) {
				s.Library, s.Section = f.Sections[s.Section].Name, 0
			}
			want = append(want, s)
		}
		for _, s := range o.Symbols {
			g := elf.Symbol{Name: s.Name, Info: elf.ST_INFO(s.Bind, s.Type), Other: s.Other, Section: s.Shndx, Value: s.Value, Size: s.Size}
			if s.Section != nil {
				g.Library = s.Section.Name
			}
			got = append(got, g)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: symbols (-debug/elf +elfobj):\n%s", name, d)
		}
	}
}
