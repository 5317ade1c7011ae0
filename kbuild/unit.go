package kbuild

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/klpc/klpc/internal/modname"
)

// Unit is one translation unit: one source file, compiled by one command into
// one object.
type Unit struct {
	Source    string // relative to the source tree: fs/proc/cmdline.c
	Generated bool   // Source is relative to the build directory instead: Kbuild made it
	Object    string // relative to the build directory: fs/proc/cmdline.o
	// Args is the compiler's exact command line, quotes resolved, to be run
	// in the build directory.
	Args []string
	// Modules are the modules that the object is linked into, as the kernel
	// names them (nf_tables); none: it is linked into vmlinux.
	Modules []string
	// Modfile is Kbuild's name of the module that the object is in, or would
	// be in if it were not built in: drivers/net/dummy. Empty if the command
	// does not say (modules before 6.14).
	Modfile string
	// Objtool is the command line, without the object, that Kbuild runs on
	// the object; nil if it runs objtool later (IBT, LTO) or never.
	Objtool []string
}

// Module is the module of the unit, or "" for vmlinux. A unit that is linked
// into several modules has only its first one here.
func (u Unit) Module() string {
	if len(u.Modules) == 0 {
		return ""
	}
	return u.Modules[0]
}

// Kind is the language of a unit.
type Kind uint8

// The languages of Kbuild.
const (
	C Kind = iota
	Assembly
	Rust
	Unknown
)

// KindOf tells the language from a file name.
func KindOf(source string) Kind {
	switch path.Ext(source) {
	case ".c":
		return C
	case ".S", ".s":
		return Assembly
	case ".rs":
		return Rust
	}
	return Unknown
}

// Kind is the unit's language.
func (u Unit) Kind() Kind { return KindOf(u.Source) }

// specialDirs are parts of the tree whose code does not run as a part of the
// kernel; prefixes of tree-relative names. Their order is that of the search.
var specialDirs = []struct{ dir, why string }{
	{"arch/x86/entry/vdso/", "vDSO: runs in user space"},
	{"arch/x86/realmode/rm/", "real-mode code: runs before the kernel and on wake-up"},
	{"arch/x86/boot/", "boot code: runs before the kernel"},
	{"arch/x86/purgatory/", "purgatory: runs between two kernels on kexec"},
	{"drivers/firmware/efi/libstub/", "EFI stub: runs before the kernel"},
	{"arch/x86/tools/", "build tool: runs on the machine that builds the kernel"},
	{"scripts/", "build tool: runs on the machine that builds the kernel"},
	{"usr/", "build tool: runs on the machine that builds the kernel"},
	{"tools/", "user-space tool: not part of the kernel"},
	{"Documentation/", "documentation: not part of the kernel"},
}

// SpecialPath tells why a file cannot be part of a livepatch, judging by its
// place in the tree alone; "" if nothing is known against it. A few files in
// such places are ordinary kernel code all the same (arch/x86/entry/vdso/vma.c);
// Unit.Special knows them.
func SpecialPath(file string) string {
	for _, s := range specialDirs {
		if strings.HasPrefix(file, s.dir) {
			return s.why
		}
	}
	if KindOf(file) == Assembly {
		return "assembly: ftrace cannot redirect functions written in assembly"
	}
	return ""
}

// Special tells why the unit's code cannot be part of a livepatch; "" if it is
// ordinary kernel code.
func (u Unit) Special() string {
	if u.Kind() == C && u.kernelCode() {
		return ""
	}
	for _, name := range []string{u.Object, u.Source} {
		if why := SpecialPath(name); why != "" {
			return why
		}
	}
	if u.Kind() == Rust {
		return "Rust: not supported"
	}
	if !u.has("-D__KERNEL__") {
		return "build tool: runs on the machine that builds the kernel"
	}
	return "not compiled as kernel code (-mcmodel=kernel is missing)"
}

// kernelCode tells whether the compiler was told to make code for the kernel's
// address range; what runs elsewhere (vDSO, EFI stub, boot, purgatory) gets
// another model, the last one counts.
func (u Unit) kernelCode() bool {
	model, width := "", ""
	for _, a := range u.Args {
		switch {
		case strings.HasPrefix(a, "-mcmodel="):
			model = a[len("-mcmodel="):]
		case a == "-m64" || a == "-m32" || a == "-m16":
			width = a
		}
	}
	return model == "kernel" && width == "-m64" && u.has("-D__KERNEL__")
}

func (u Unit) has(arg string) bool {
	for _, a := range u.Args {
		if a == arg {
			return true
		}
	}
	return false
}

// asCompile judges one simple command: a compile has -c, -o OBJECT and a source.
func asCompile(c *command) (object, source int, ok bool) {
	object, source = -1, -1
	compile := false
	for i := 1; i < c.len(); i++ {
		switch w := c.word(i); {
		case string(w) == "-c":
			compile = true
		case string(w) == "-o" && i+1 < c.len():
			i++
			object = i
		case len(w) > 2 && w[0] != '-' && !optionWithValue(c.word(i-1)) && sourceName(w):
			source = i
		}
	}
	return object, source, compile && object > 0 && source > 0 && bytes.HasSuffix(c.word(object), []byte(".o"))
}

func sourceName(w []byte) bool {
	return bytes.HasSuffix(w, []byte(".c")) || bytes.HasSuffix(w, []byte(".S")) || bytes.HasSuffix(w, []byte(".s"))
}

// optionWithValue tells whether the next word is the option's value.
func optionWithValue(w []byte) bool {
	switch string(w) {
	case "-include", "-imacros", "-isystem", "-iquote", "-idirafter", "-I", "-D", "-U", "-MF", "-MT", "-MQ", "-Xassembler", "-x":
		return true
	}
	return false
}

func isObjtool(w []byte) bool { return bytes.HasSuffix(w, []byte("/objtool/objtool")) }

// found is a compile command as the text has it.
type found struct {
	args, objtool  []string
	object, source string // as written
}

// findCompile finds the first compile command in a shell text, and objtool's
// command after it. ok is false if there is none.
func findCompile(text []byte, c *command, str func([]byte) string) (f found, ok bool, err error) {
	l := lexer{src: text}
	for more := true; more; {
		if more, err = l.next(c); err != nil {
			return found{}, false, err
		}
		if c.len() == 0 {
			continue
		}
		first := c.word(0)
		if ok && bytes.HasSuffix(first, []byte("/fixdep")) {
			return f, true, nil
		}
		if ok {
			if isObjtool(first) {
				f.objtool = words(c, c.len()-1, str)
				return f, true, nil
			}
			continue
		}
		object, source, is := asCompile(c)
		if !is {
			continue
		}
		if c.dynamic {
			return found{}, false, fmt.Errorf("the command for %s needs a shell to expand it", c.word(object))
		}
		ok = true
		f = found{args: words(c, c.len(), str), object: str(c.word(object)), source: str(c.word(source))}
	}
	return f, ok, nil
}

func words(c *command, n int, str func([]byte) string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = str(c.word(i))
	}
	return out
}

// errOutside is a command that does not belong to Kbuild's build directory.
var errOutside = errors.New("not in the tree")

// newUnit makes a unit of a found command.
func newUnit(r roots, f found) (Unit, error) {
	object, at := r.locate(f.object)
	if at == outside || at == inSource && r.source != r.build {
		return Unit{}, fmt.Errorf("the object %s: %w", f.object, errOutside)
	}
	source, at := r.locate(f.source)
	if at == outside {
		return Unit{}, fmt.Errorf("the source %s of %s: %w", f.source, f.object, errOutside)
	}
	u := Unit{Source: source, Generated: at == inBuild, Object: object, Args: f.args, Objtool: f.objtool}
	u.Modules, u.Modfile = modulesOf(f.args)
	return u, nil
}

// modulesOf reads the module names from the defines that Kbuild gives to every
// object: -DMODULE and KBUILD_MODNAME, which joins several names with ':'.
func modulesOf(args []string) (modules []string, modfile string) {
	var name string
	module := false
	for _, a := range args {
		if a == "-DMODULE" {
			module = true
		}
		if v, ok := strings.CutPrefix(a, "-DKBUILD_MODNAME="); ok {
			name = strings.Trim(v, `"`)
		}
		if v, ok := strings.CutPrefix(a, "-DKBUILD_MODFILE="); ok {
			modfile = strings.Trim(v, `"`)
		}
	}
	if module && name != "" {
		modules = strings.Split(modname.Canonical(name), ":")
	}
	return modules, modfile
}
