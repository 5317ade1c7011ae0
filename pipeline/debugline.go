package pipeline

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"

	"github.com/klpc/klpc/elfdiff"
)

// QuoteObject fills in the source lines of problems from the debug information
// of the patched object, if it has any: where the function or variable is
// defined. The line's text is read from the source file if that is there.
func QuoteObject(problems []elfdiff.Problem, object []byte) {
	if len(problems) == 0 {
		return
	}
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return
	}
	d, err := f.DWARF()
	if err != nil {
		return // explaining is all that it is for
	}
	lines := definitions(d)
	for i := range problems {
		p := &problems[i]
		// gcc writes NAME.N, clang FUNCTION.NAME.
		for _, name := range strings.Split(p.At.Symbol, ".") {
			if l, ok := lines[name]; ok && p.Source == nil {
				p.Source = &l
			}
		}
	}
}

// definitions maps the names of functions and variables to the line of their
// definition. Of names that several have, the first is taken.
func definitions(d *dwarf.Data) map[string]elfdiff.Line {
	out := map[string]elfdiff.Line{}
	r := d.Reader()
	var files []*dwarf.LineFile
	dir := ""
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			return out
		}
		switch e.Tag {
		case dwarf.TagCompileUnit:
			files = nil
			if lr, err := d.LineReader(e); err == nil && lr != nil {
				files = lr.Files()
			}
			dir, _ = e.Val(dwarf.AttrCompDir).(string)
		case dwarf.TagSubprogram, dwarf.TagVariable:
			name, _ := e.Val(dwarf.AttrName).(string)
			file, _ := e.Val(dwarf.AttrDeclFile).(int64)
			line, _ := e.Val(dwarf.AttrDeclLine).(int64)
			_, seen := out[name]
			if declared, _ := e.Val(dwarf.AttrDeclaration).(bool); declared || seen || name == "" || line <= 0 ||
				file < 0 || int(file) >= len(files) || files[file] == nil {
				continue
			}
			out[name] = sourceLine(dir, files[file].Name, int(line))
		}
	}
}

// sourceLine reads a line of a source file. The name is made relative to the
// folder that the compiler ran in, which is the kernel tree.
func sourceLine(dir, name string, n int) elfdiff.Line {
	l := elfdiff.Line{File: name, Line: n}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, name)
	} else if rel, err := filepath.Rel(dir, name); dir != "" && err == nil && filepath.IsLocal(rel) {
		l.File = rel
	}
	// Objects may name anything: a device, or a file that never ends.
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() > largestSource {
		return l
	}
	data, err := os.ReadFile(path)
	if lines := strings.Split(string(data), "\n"); err == nil && n <= len(lines) {
		l.Text = strings.TrimSpace(lines[n-1])
	}
	return l
}

// largestSource is in bytes; the kernel's largest generated header has 24 MB.
const largestSource = 64 << 20
