package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What stands for the compiler.
//
// Running it to ask for its version costs a process and would not notice a
// rebuilt compiler of the same version. Instead the files of the toolchain
// count, by path, size and modification time: every file of the compiler's
// name along PATH (the first may be a launcher that goes by the compiler's
// name), the compilers proper that belong to its installation, and the
// assemblers that it may run.

// tools remembers identities for the life of the store.
type tools struct {
	mu    sync.Mutex
	known map[string][]string // by PATH and program words
}

// identity returns one word for each file of a command's toolchain.
func (t *tools) identity(c Command) []string {
	programs, path := c.programs(), c.path()
	id := path + "\x00" + strings.Join(programs, "\x00")
	t.mu.Lock()
	defer t.mu.Unlock()
	if got, ok := t.known[id]; ok {
		return got
	}
	var out []string
	for _, p := range programs {
		out = append(out, toolFiles(p, filepath.SplitList(path))...)
	}
	if t.known == nil {
		t.known = map[string][]string{}
	}
	t.known[id] = out
	return out
}

func toolFiles(program string, path []string) []string {
	base := filepath.Base(program)
	candidates := []string{program}
	if base == program {
		candidates = along(path, base)
	}
	var out []string
	var prefixes []string
	for _, c := range candidates {
		out = append(out, identify(c))
		real, err := filepath.EvalSymlinks(c)
		if err != nil {
			continue
		}
		out = append(out, identify(real))
		prefixes = append(prefixes, filepath.Dir(filepath.Dir(real)))
	}
	for _, p := range prefixes {
		// cc1 of every version and machine: a change of any is rare.
		for _, pattern := range []string{"lib/gcc/*/*/cc1", "libexec/gcc/*/*/cc1", "*/bin/as"} {
			found, err := filepath.Glob(filepath.Join(p, pattern))
			if err != nil {
				continue // only a pattern can be wrong
			}
			for _, f := range found {
				out = append(out, identify(f))
			}
		}
	}
	assemblers := []string{"as"}
	if i := strings.LastIndex(base, "-gcc"); i > 0 {
		assemblers = append(assemblers, base[:i]+"-as")
	}
	for _, as := range assemblers {
		for _, f := range along(path, as) {
			out = append(out, identify(f))
		}
	}
	return out
}

// along returns the programs of a name in the folders of PATH.
func along(path []string, name string) []string {
	var out []string
	for _, dir := range path {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			out = append(out, p)
		}
	}
	return out
}

// identify is a word for a file as it is now, links followed.
func identify(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return path + " missing"
	}
	return fmt.Sprintf("%s %d %d.%09d", path, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
}
