package pipeline

// Compiler launchers, such as ccache and distcc.
//
// ccache finds a result by the command line, and so by the paths in it. The
// patched view of a tree usually lies in a work folder with a name of its own,
// and would never be found again. So with a launcher it lies in klpc's cache
// folder, under a name that the next build for the same tree gets, too.
//
// In its direct mode ccache trusts the files that an earlier compile has read,
// if their content is the same. It does not see a file that is new and that an
// include would find first now (its manual, "The direct mode"). So where a patch
// adds files, the launchers that have such a mode are told to preprocess.

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/klpc/klpc/kbuild"
)

// SplitLauncher splits a compiler launcher and its arguments at blanks, with a
// shell's quotes. An empty text is no launcher.
func SplitLauncher(text string) ([]string, error) {
	words, err := kbuild.Words(text)
	if len(words) == 0 {
		return nil, err
	}
	return words, err
}

// findLauncher makes a launcher's program absolute: compiles run elsewhere.
func findLauncher(launcher []string) ([]string, error) {
	if len(launcher) == 0 {
		return nil, nil
	}
	path, err := exec.LookPath(launcher[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the compiler launcher %s cannot be run: %w; install it, or leave --cc-launcher out", launcher[0], err)
	}
	return append([]string{path}, launcher[1:]...), nil
}

// place is a folder that one process at a time has, and that is removed when
// it has done with it.
type place struct {
	dir  string
	lock *os.File
}

// mostPlaces is how many builds of the same kind find a place at once.
const mostPlaces = 64

// takePlace returns the first free place of a name in a folder.
func takePlace(folder, name string) (*place, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	removeAbandonedPlaces(folder)
	for n := range mostPlaces {
		p, err := tryPlace(filepath.Join(folder, fmt.Sprintf("%s-%d", name, n)))
		if p != nil || err != nil {
			return p, err
		}
	}
	return nil, fmt.Errorf("%s: no place is free", folder)
}

// tryPlace takes a place; nil if another process has it.
func tryPlace(dir string) (*place, error) {
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	p := &place{dir, lock}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && p.removed() {
		err = unix.EWOULDBLOCK // its owner has gone, and took the lock's file along
	}
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err == nil {
		return p, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = nil
	}
	return nil, errors.Join(err, lock.Close())
}

// removed tells whether the lock's file is not the one under its name.
func (p *place) removed() bool {
	named, err := os.Stat(p.lock.Name())
	if err != nil {
		return true
	}
	held, err := p.lock.Stat()
	return err != nil || !os.SameFile(named, held)
}

func (p *place) close() error {
	return errors.Join(os.RemoveAll(p.dir), os.Remove(p.lock.Name()), p.lock.Close())
}

// removeAbandonedPlaces removes what killed processes have left.
func removeAbandonedPlaces(folder string) {
	locks, err := filepath.Glob(filepath.Join(folder, "*.lock"))
	if err != nil {
		return
	}
	for _, l := range locks {
		if p, err := tryPlace(strings.TrimSuffix(l, ".lock")); err == nil && p != nil {
			_ = p.close() // what stays is tried again
		}
	}
}

// noDirectMode lets ccache and sccache look at what the preprocessor reads.
var noDirectMode = []string{"CCACHE_NODIRECT=1", "SCCACHE_DIRECT=false"}

// launcherEnv is the environment of the launcher for what the patch compiles.
func (b *builder) launcherEnv() []string {
	if len(b.o.Launcher) > 0 && slices.ContainsFunc(b.files, func(f touched) bool { return f.isNew }) {
		return noDirectMode
	}
	return nil
}

// shadowDir is where the patched view lies.
func (b *builder) shadowDir() string {
	own := filepath.Join(b.work.dir, "src")
	if len(b.o.Launcher) == 0 || b.o.Cache == "" {
		return own
	}
	var err error
	if b.place, err = takePlace(filepath.Join(b.o.Cache, "views"), digestOf([]byte(b.kernel.Tree.Build))[:16]); err != nil {
		b.note(fmt.Sprintf("%v: ccache will not find again what is compiled for the patch", err))
		return own
	}
	return b.place.dir
}
