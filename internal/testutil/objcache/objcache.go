// Package objcache keeps what compilers make for tests in the user's cache
// folder (klpc/test-objects), so that tests of given texts need not run them
// again. A result is found by all that it depends on: the texts, the commands,
// and what the tools say of their versions. Sources that include others, and
// tools that do not tell a version, are never kept.
package objcache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Job makes one file out of texts. Neither the files nor the commands may name
// a temporary path.
type Job struct {
	Files map[string]string // stand in a new folder
	Steps [][]string        // commands that run there, one after the other
	Out   string            // the file to read in the end
}

// Make returns what a job makes. It skips the test if a tool is missing, and
// fails it if a command fails.
func Make(t testing.TB, j Job) []byte {
	t.Helper()
	out, err := Try(t, j)
	if missing := (*missingError)(nil); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try returns what a job makes, or why it makes nothing; that is not kept.
func Try(t testing.TB, j Job) ([]byte, error) { return shared().make(t.TempDir, j) }

type missingError struct{ name string }

func (e *missingError) Error() string { return fmt.Sprintf("needs %s, which is not installed", e.name) }

const (
	unusedFor  = 14 * 24 * time.Hour // after which an entry is removed
	touchAfter = 24 * time.Hour      // how exactly the last use is known
	sweptFile  = "swept"             // its age is that of the last look for unused entries
)

// environment are the variables that change what compilers make.
var environment = []string{"CPATH", "C_INCLUDE_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "SOURCE_DATE_EPOCH", "CCC_OVERRIDE_OPTIONS"}

type cache struct {
	dir string // empty: nothing is kept

	mu    sync.Mutex
	tools map[string]func() (string, error)
	asked map[[sha256.Size]byte]int
}

var shared = sync.OnceValue(func() *cache {
	dir, err := os.UserCacheDir()
	if err != nil {
		return open("", time.Now())
	}
	return open(filepath.Join(dir, "klpc", "test-objects"), time.Now())
})

// open returns the cache in a folder, or one that keeps nothing if it cannot be
// written.
func open(dir string, now time.Time) *cache {
	c := &cache{tools: map[string]func() (string, error){}, asked: map[[sha256.Size]byte]int{}}
	if dir == "" || os.MkdirAll(dir, 0o755) != nil {
		return c
	}
	probe, err := os.CreateTemp(dir, "tmp-")
	if err != nil {
		return c
	}
	if errors.Join(probe.Close(), os.Remove(probe.Name())) != nil {
		return c
	}
	c.dir = dir
	c.sweep(now)
	return c
}

// sweep removes what has not been used for long, at most once a day.
func (c *cache) sweep(now time.Time) {
	swept := filepath.Join(c.dir, sweptFile)
	if st, err := os.Stat(swept); err == nil && now.Sub(st.ModTime()) < touchAfter {
		return
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil && now.Sub(st.ModTime()) > unusedFor {
			_ = os.Remove(filepath.Join(c.dir, e.Name())) // another process may have
		}
	}
	if os.WriteFile(swept, nil, 0o644) == nil {
		_ = os.Chtimes(swept, now, now)
	}
}

// make returns what a job makes. A process that asks for the same more than once
// gets results of as many runs: tests compare them.
func (c *cache) make(tempDir func() string, j Job) ([]byte, error) {
	for _, s := range j.Steps {
		if _, err := exec.LookPath(s[0]); err != nil {
			return nil, &missingError{s[0]}
		}
	}
	key, ok := c.key(j)
	if c.dir == "" || !ok {
		return j.run(tempDir())
	}
	c.mu.Lock()
	c.asked[key]++
	path := filepath.Join(c.dir, fmt.Sprintf("%x-%d", key, c.asked[key]))
	c.mu.Unlock()
	if data, ok := load(path); ok {
		return data, nil
	}
	data, err := j.run(tempDir())
	if err == nil {
		store(path, data)
	}
	return data, err
}

// key is the digest of all that a result depends on, if that is known.
func (c *cache) key(j Job) (key [sha256.Size]byte, ok bool) {
	h := sha256.New()
	put := func(fields ...string) {
		fmt.Fprintf(h, "%d\n", len(fields))
		for _, f := range fields {
			fmt.Fprintf(h, "%d %s\n", len(f), f)
		}
	}
	for _, name := range environment {
		put(name, os.Getenv(name))
	}
	for _, name := range slices.Sorted(maps.Keys(j.Files)) {
		text := j.Files[name]
		if filepath.Ext(name) != ".o" && (strings.Contains(text, "#include") || strings.Contains(text, ".incbin")) {
			return key, false
		}
		put("file", name, text)
	}
	for _, s := range j.Steps {
		put(append([]string{"step"}, s...)...)
		names := []string{s[0]}
		if isCompiler(s[0]) {
			names = append(names, "as")
		}
		for _, name := range names {
			version, err := c.version(name)
			if err != nil {
				return key, false
			}
			put("version", version)
		}
	}
	put("out", j.Out)
	h.Sum(key[:0])
	return key, true
}

func isCompiler(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, "gcc") || strings.HasPrefix(base, "clang")
}

// version is what a tool says of itself. It is asked once.
func (c *cache) version(name string) (string, error) {
	c.mu.Lock()
	ask := c.tools[name]
	if ask == nil {
		ask = sync.OnceValues(func() (string, error) {
			flag := "--version"
			if isCompiler(name) {
				flag = "-v"
			}
			out, err := command("", name, flag).CombinedOutput()
			if err == nil && len(bytes.TrimSpace(out)) == 0 {
				err = errors.New("no version")
			}
			return string(out), err
		})
		c.tools[name] = ask
	}
	c.mu.Unlock()
	return ask()
}

func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// run does the job in a folder.
func (j Job) run(dir string) ([]byte, error) {
	for name, text := range j.Files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	for _, s := range j.Steps {
		if out, err := command(dir, s[0], s[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(s, " "), err, out)
		}
	}
	return os.ReadFile(filepath.Join(dir, j.Out))
}

// An entry is the digest of the data and the data.

func load(path string) ([]byte, bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil || len(data) < sha256.Size {
		return nil, false
	}
	sum, data := data[:sha256.Size], data[sha256.Size:]
	if got := sha256.Sum256(data); !bytes.Equal(got[:], sum) {
		return nil, false
	}
	if st, err := f.Stat(); err == nil && time.Since(st.ModTime()) > touchAfter {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // then it is removed too early, and made again
	}
	return data, true
}

// store writes an entry, or none.
func store(path string, data []byte) {
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-")
	if err != nil {
		return
	}
	sum := sha256.Sum256(data)
	_, err = f.Write(append(sum[:], data...))
	if errors.Join(err, f.Close()) != nil || os.Rename(f.Name(), path) != nil {
		_ = os.Remove(f.Name())
	}
}
