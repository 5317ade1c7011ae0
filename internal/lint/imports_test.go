// Package lint keeps the project's structure: which package may import which.
package lint

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/klpc/klpc/"

// allowed lists, for each package of this module, the packages of this module
// that its non-test code may import. A package that is not listed may import
// none. docs/architecture.md shows the same as a picture.
var allowed = map[string][]string{
	"cmd/klpc":                  {"cache", "codegen", "elfdiff", "elfobj", "inspect", "internal/modsign", "internal/systemd", "internal/ui", "internal/vm", "livepatch", "livetest", "pipeline", "risk", "store", "survey", "target", "verify"},
	"codegen":                   {"elfdiff", "elfobj", "internal/arch", "internal/modname", "kmodtmpl", "locate", "target"},
	"distro":                    {"internal/run"},
	"elfdiff":                   {"elfobj", "internal/arch"},
	"elfobj":                    {"internal/arch"},
	"inspect":                   {"elfobj", "internal/arch", "modsource", "target"},
	"internal/testutil/kernels": {"distro", "pipeline"},
	"internal/modsign":          {"internal/run", "target"},
	"internal/systemd":          {"internal/run"},
	"internal/vm":               {"internal/run"},
	"kbuild":                    {"internal/modname", "internal/run"},
	"livepatch":                 {"inspect", "internal/modname", "target"},
	"livetest":                  {"elfobj", "internal/modname", "internal/vm", "target"},
	"locate":                    {"elfdiff", "elfobj", "internal/arch", "target"},
	"pipeline":                  {"cache", "codegen", "cpptext", "diff", "distro", "elfdiff", "elfobj", "internal/modname", "internal/run", "kbuild", "kmodtmpl", "livetest", "modsource", "risk", "target", "typediff", "verify"},
	"risk":                      {"diff"},
	"store":                     {"inspect", "internal/modname", "modsource", "target"},
	"survey":                    {"codegen", "diff", "elfdiff", "internal/modname", "internal/run", "internal/vm", "kbuild", "livetest", "pipeline", "verify"},
	"target":                    {"elfobj"},
	"typediff":                  {"elfobj"},
	"verify":                    {"elfdiff", "elfobj", "internal/arch", "internal/modname", "locate", "modsource", "target"},
}

// pure packages take and return values: no files, processes or logs.
var pure = []string{"codegen", "diff", "elfdiff", "elfobj", "kmodtmpl", "cpptext", "risk", "typediff", "internal/arch", "internal/modname", "locate", "modsource", "verify"}

var impure = []string{"os", "os/exec", "log", "log/slog", "net", "net/http", "github.com/spf13/cobra"}

// explainers may use a disassembler or demangler: never code that decides.
var explainers = []string{"golang.org/x/arch/x86/x86asm", "github.com/ianlancetaylor/demangle"}

func TestImports(t *testing.T) {
	root := "../.."
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			check(t, filepath.ToSlash(rel), filepath.Base(path), name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("only %d source files seen: is the root right?", seen)
	}
}

func check(t *testing.T, pkg, file, imported string) {
	t.Helper()
	if own, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed[pkg], own) {
		t.Errorf("%s/%s imports %s: not among what %s may use", pkg, file, own, pkg)
	}
	if slices.Contains(pure, pkg) && slices.Contains(impure, imported) {
		t.Errorf("%s/%s imports %s: %s takes and returns values only", pkg, file, imported, pkg)
	}
	if slices.Contains(explainers, imported) && pkg != "explain" {
		t.Errorf("%s/%s imports %s: only code that explains may", pkg, file, imported)
	}
}
