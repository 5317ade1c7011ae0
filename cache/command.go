package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// formatVersion is part of every key: entries of another format are not found.
const formatVersion = "klpc compile cache 1"

// Command is a compile and what is kept of it.
type Command struct {
	// Kind says what the result is: results of different kinds never meet.
	Kind string
	// Args are the compiler and its arguments, as for the original tree. The
	// names of outputs do not count.
	Args []string
	// Launcher is the program that runs the compiler, such as distcc.
	Launcher []string
	// Env is added to this process's environment, later entries win.
	Env []string
	// Dir is where it runs: absolute, without symbolic links.
	Dir string
	// Inputs are further files that decide the result, named as by View.Name:
	// programs that made it of the compiler's output.
	Inputs []string
	// View is where its files are.
	View View
}

// View tells where the files of a source tree are to be seen. Names in it are
// relative to Source for files below that, and absolute for all others.
type View struct {
	Source string // absolute, without symbolic links
	// Build is not part of the view, even if it lies below Source.
	Build string
	// At is Source itself, or another folder that looks like it and that only
	// this process changes: the patched view.
	At string
}

// Name is the name of a file given by an absolute and clean path in Source.
func (v View) Name(path string) string {
	if below(v.Build, path) && v.Build != v.Source || !below(v.Source, path) {
		return path
	}
	return strings.TrimPrefix(path[len(v.Source):], "/")
}

// path is where to look for a file.
func (v View) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	if name == "" {
		return v.At
	}
	return v.At + "/" + name
}

// private tells whether a file that the view shows is the view's own, and not
// one of the original tree.
func (v View) private(path string) bool {
	if v.At == v.Source {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return err == nil && below(v.At, real)
}

// below tells whether path is dir or lies in it. Both are clean and absolute.
func below(dir, path string) bool {
	return path == dir || len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// programs are the launcher and the compiler, which may have a launcher of
// Kbuild's before it: the words before the options.
func (c Command) programs() []string {
	out := slices.Clone(c.Launcher)
	for _, a := range c.Args {
		if strings.HasPrefix(a, "-") {
			break
		}
		out = append(out, a)
	}
	return slices.DeleteFunc(out, func(a string) bool { return strings.HasPrefix(a, "-") })
}

// getenv looks a variable up as the compiler will see it.
func (c Command) getenv(name string) (value string, ok bool) {
	for _, e := range slices.Backward(c.Env) {
		if n, v, found := strings.Cut(e, "="); found && n == name {
			return v, true
		}
	}
	return os.LookupEnv(name)
}

// path is where programs are looked for: the compiler along this process's
// PATH, and by the compiler along its own.
func (c Command) path() string {
	own := os.Getenv("PATH")
	if v, ok := c.getenv("PATH"); ok && v != own {
		return own + string(filepath.ListSeparator) + v
	}
	return own
}

// sideOutputs are options that make compilers write, or mention in the object,
// files named after the output.
var sideOutputs = []string{
	"--coverage", "-fprofile-arcs", "-ftest-coverage", "-fprofile-generate", "-fprofile-instr-generate",
	"-gsplit-dwarf", "-save-temps", "-fcallgraph-info", "-fstack-usage", "-fdump-", "-frecord-gcc-switches", "-frecord-command-line",
}

// unfit tells why results of a command cannot be kept; "" if they can.
func (c Command) unfit() string {
	for _, a := range c.Args {
		for _, p := range sideOutputs {
			if strings.HasPrefix(a, p) {
				return a + " makes the result depend on the name of the output"
			}
		}
	}
	return ""
}

// environment are the variables that GCC and Clang read, beside PATH, which
// counts by what is found along it (tools). Their manuals: "Environment
// Variables Affecting GCC"; "clang - the Clang C, C++, and Objective-C compiler".
var environment = []string{
	"CCC_OVERRIDE_OPTIONS", "COMPILER_PATH", "CPATH", "C_INCLUDE_PATH", "DEPENDENCIES_OUTPUT", "GCC_COMPARE_DEBUG",
	"GCC_EXEC_PREFIX", "LIBRARY_PATH", "SOURCE_DATE_EPOCH", "SUNPRO_DEPENDENCIES",
}

// key is the first key: of everything that decides the result and is known
// before the compile, except the content of files.
func (c Command) key(tools []string) digest {
	h := sha256.New()
	list := func(words []string) {
		var n [binary.MaxVarintLen64]byte
		h.Write(n[:binary.PutUvarint(n[:], uint64(len(words)))])
		for _, w := range words {
			h.Write(n[:binary.PutUvarint(n[:], uint64(len(w)))])
			h.Write([]byte(w))
		}
	}
	view := "original"
	if c.View.At != c.View.Source {
		view = "patched"
	}
	list([]string{formatVersion, c.Kind, view, c.Dir, c.View.Source, c.View.Build})
	list(tools)
	list(c.Launcher)
	list(c.Inputs)
	list(c.withoutOutputs())
	list(c.systemDirs())
	list(c.environ())
	return digest(h.Sum(nil))
}

// environ are the variables that count.
func (c Command) environ() []string {
	var out []string
	for _, name := range environment {
		if v, ok := c.getenv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	// GCC takes the name of the working directory from PWD if that is one of
	// its names, and writes it into debug information.
	if pwd, _ := c.getenv("PWD"); pwd != "" && pwd != c.Dir {
		a, errA := os.Stat(pwd)
		b, errB := os.Stat(c.Dir)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			out = append(out, "PWD="+pwd)
		}
	}
	return out
}

// withoutOutputs are the arguments without the names of the object and of the
// dependency file.
func (c Command) withoutOutputs() []string {
	out := make([]string, 0, len(c.Args))
	for i := 0; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case a == "-o" || a == "-MF" || a == "-MT" || a == "-MQ":
			i++
		case strings.HasPrefix(a, "-Wp,-MMD,"):
			out = append(out, "-Wp,-MMD")
		case strings.HasPrefix(a, "-Wp,-MD,"):
			out = append(out, "-Wp,-MD")
		default:
			out = append(out, a)
		}
	}
	return out
}

// pathOptions take a folder, joined or as the next argument.
var pathOptions = []string{"-I", "-iquote", "-isystem", "-idirafter"}

// searched are the directories in which includes are looked for, named as by
// View.Name.
func (c Command) searched() []string {
	var out []string
	for i := 0; i < len(c.Args); i++ {
		for _, opt := range pathOptions {
			v, ok := strings.CutPrefix(c.Args[i], opt)
			if !ok {
				continue
			}
			if v == "" && i+1 < len(c.Args) {
				i++
				v = c.Args[i]
			}
			out = append(out, c.View.Name(c.absolute(v)))
			break
		}
	}
	return out
}

func (c Command) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.Dir, path)
}

// systemDirs are the -isystem folders and their stamps: -MMD leaves the headers
// in them out, and Kbuild before 5.16 has the compiler's own there. Packages
// replace files by renaming, which shows in the folder's time.
func (c Command) systemDirs() []string {
	var out []string
	for i, a := range c.Args {
		v, ok := strings.CutPrefix(a, "-isystem")
		if !ok {
			continue
		}
		if v == "" && i+1 < len(c.Args) {
			v = c.Args[i+1]
		}
		out = append(out, identify(c.absolute(v)))
	}
	return out
}

// inputs are files that no dependency file lists: the command's own and those
// that options name, such as plugins. Named as by View.Name.
func (c Command) inputs() []string {
	out := slices.Clone(c.Inputs)
	for _, a := range c.Args {
		if !strings.HasPrefix(a, "-f") && !strings.HasPrefix(a, "-specs=") {
			continue
		}
		_, v, ok := strings.Cut(a, "=")
		if !ok || !strings.Contains(v, "/") {
			continue
		}
		path := c.absolute(v)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			out = append(out, c.View.Name(path))
		}
	}
	return out
}
