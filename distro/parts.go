package distro

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A kernel from its parts: the caller's source tree is only read, and what make
// generates from it lies in the cache, under a name that is a hash of all that
// the generated files and the compile commands depend on. So a part that has
// changed leads to another tree, and a prepared tree is never changed.

// Parts are what a kernel was built from.
type Parts struct {
	Source  string // directory of a source tree in which nothing was built
	Config  string // the kernel's .config
	Symvers string // the kernel's Module.symvers
	Release string // what uname -r says
}

// FromParts returns a kernel's source, prepared as the kernel was configured.
// The first time takes about a minute; then the prepared tree is used until one
// of the parts changes. Several processes may ask for the same tree at once.
func FromParts(ctx context.Context, parts Parts, o Options) (*Tree, error) {
	p, err := newPreparer(o, "parts", defaultHost())
	if err != nil {
		return nil, err
	}
	return p.fromParts(ctx, parts)
}

func (p *preparer) fromParts(ctx context.Context, parts Parts) (*Tree, error) {
	var err error
	if parts.Source, err = sourceDir(parts.Source); err != nil {
		return nil, err
	}
	if !unameRelease.MatchString(parts.Release) || len(parts.Release) > maxRelease {
		return nil, fmt.Errorf("%q is no release of a kernel, such as uname -r says", parts.Release)
	}
	if err := parts.checkVersion(); err != nil {
		return nil, err
	}
	key, err := parts.key()
	if err != nil {
		return nil, err
	}
	t, err := p.reuse(ctx, parts.Release, key)
	if t != nil || err != nil {
		return t, err
	}
	if err := p.host.check(buildTools); err != nil {
		return nil, err
	}
	return p.makeTree(ctx, request{release: parts.Release, version: key, space: partsSpace, from: parts})
}

func (p Parts) settings(context.Context, string) (settings, error) {
	return settings{config: p.Config, symvers: p.Symvers}, nil
}

func (p Parts) provide(context.Context, string, string) (source string, err error) {
	return p.Source, nil
}

// maxRelease is __NEW_UTS_LEN of include/uapi/linux/utsname.h, in bytes.
const maxRelease = 64

var unameRelease = regexp.MustCompile(`^[0-9][0-9A-Za-z.+_~-]*$`)

// sourceDir returns the physical path of a source tree that make can use with O=.
func sourceDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return "", fmt.Errorf("source tree: %w", err)
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(abs, name))
		return err == nil
	}
	for _, name := range []string{"Makefile", "Kconfig", "scripts/Kbuild.include", "init/main.c"} {
		if !exists(name) {
			return "", fmt.Errorf("%s is no kernel source tree: it has no %s", dir, name)
		}
	}
	// What the kernel's Makefile takes for a tree that is not clean.
	for _, name := range []string{".config", "include/config", "arch/x86/include/generated"} {
		if exists(name) {
			return "", fmt.Errorf("a kernel was configured or built in the source tree %s (it has %s), so make cannot use it for another build: "+
				"give a clean source tree (unpack it anew, or git worktree add), or --kernel %s if the kernel to patch was built there", dir, name, dir)
		}
	}
	return abs, checkPath(abs)
}

// configHeader is the third line of a .config, which Kconfig writes with the
// version of the source, without what LOCALVERSION adds.
var configHeader = regexp.MustCompile(`(?m)^# Linux/\S+ (\S+) Kernel Configuration$`)

// ConfigRelease returns the release as far as the text of a .config tells it:
// not what the build added from files, git or make's command line.
func ConfigRelease(text string) (release string, ok bool) {
	m := configHeader.FindStringSubmatch(text)
	if m == nil {
		return "", false
	}
	return m[1] + parseConfig(text).text("CONFIG_LOCALVERSION"), true
}

var (
	makefileVersion = regexp.MustCompile(`(?m)^(VERSION|PATCHLEVEL|SUBLEVEL)[ \t]*=[ \t]*([0-9]+)[ \t]*$`)
	threeNumbers    = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+`)
)

// checkVersion compares the version in the source's Makefile with that of the
// source that the configuration was written for.
func (p Parts) checkVersion() error {
	config, err := os.ReadFile(p.Config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	makefile, err := os.ReadFile(filepath.Join(p.Source, "Makefile"))
	if err != nil {
		return fmt.Errorf("source tree: %w", err)
	}
	var numbers []string
	for _, m := range makefileVersion.FindAllSubmatch(makefile, -1) {
		numbers = append(numbers, string(m[2]))
	}
	source := strings.Join(numbers, ".")
	release, _ := ConfigRelease(string(config))
	if want := threeNumbers.FindString(release); want != "" && len(numbers) == 3 && want != source {
		return fmt.Errorf("the configuration %s is that of Linux %s, but the source tree %s is Linux %s: get the source that the kernel was built from",
			p.Config, want, p.Source, source)
	}
	return nil
}

// key is a hash of everything that a prepared tree depends on.
func (p Parts) key() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", p.Source)
	for _, name := range []string{p.Config, p.Symvers} {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%x\n", sha256.Sum256(b))
	}
	if err := identify(h, p.Source); err != nil {
		return "", fmt.Errorf("source tree: %w", err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// generators are the folders whose files make turns into others when it
// prepares a tree: headers into offsets and system call tables, programs into
// tools. Elsewhere only the files that steer make do.
var generators = []string{"arch/x86/", "include/", "scripts/", "tools/"}

// identify writes to w, in a fixed order, the names, sizes and times of the
// files of a source tree that a prepared tree depends on: some 20 000. Their
// contents take 50 times as long. The files that are compiled are not among
// them, because a compile reads what is there.
func identify(w io.Writer, source string) error {
	return filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "__pycache__" { // the latter comes and goes with builds
				return fs.SkipDir
			}
			return nil
		}
		rel := path[len(source)+1:]
		generates := func(dir string) bool { return strings.HasPrefix(rel, dir) }
		if !steersMake(d.Name()) && !slices.ContainsFunc(generators, generates) {
			return nil
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%q %v %d %d\n", rel, st.Mode(), st.Size(), st.ModTime().UnixNano())
		return err
	})
}

func steersMake(name string) bool {
	for _, prefix := range []string{"Makefile", "Kbuild", "Kconfig", "localversion"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
