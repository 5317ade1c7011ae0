package cache

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// toy is a source tree with a compiler, and a store.
type toy struct {
	t     testing.TB
	root  string // holds src/, out/, bin/ and store/
	store *Store
	cmd   Command
	deps  []string
}

var toyDeps = []string{"kernel/fork.c", "include/linux/kconfig.h", "include/linux/sched.h", "arch/include/asm/page.h", "kernel/sched.h"}

const toyLimit = 64 << 20

// newToy makes a tree in which kernel/fork.c reads a few headers.
func newToy(t testing.TB) *toy {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	y := &toy{t: t, root: root}
	for _, d := range toyDeps {
		y.write("src/"+d, "text of "+d)
	}
	y.write("out/include/generated/autoconf.h", "#define CONFIG_A 1")
	y.write("bin/gcc", "compiler")
	y.write("bin/as", "assembler")
	if err := os.Chmod(y.at("bin/gcc"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", y.at("bin"))
	y.deps = append(append([]string{}, toyDeps...), y.at("out/include/generated/autoconf.h"))
	y.cmd = Command{
		Kind: "object", Dir: y.at("out"),
		Args: []string{"gcc", "-Wp,-MMD,kernel/.fork.o.d", "-I" + y.at("src/arch/include"), "-I./arch/generated", "-I" + y.at("src/include"),
			"-I./include", "-O2", "-c", "-o", "kernel/fork.o", y.at("src/kernel/fork.c")},
		View: View{Source: y.at("src"), Build: y.at("out"), At: y.at("src")},
	}
	y.store = y.open(toyLimit)
	return y
}

// open returns another store in the same folder, as another process would have
// it. Its clock is ahead, so that the files of the toy are not too new.
func (y *toy) open(limit int64) *Store {
	y.t.Helper()
	s, err := Open(y.at("store"), limit)
	if err != nil {
		y.t.Fatal(err)
	}
	s.now = ahead
	return s
}

func ahead() time.Time { return time.Now().Add(10 * time.Second) }

func (y *toy) at(name string) string { return filepath.Join(y.root, name) }

// write replaces a file by a new one.
func (y *toy) write(name, content string) {
	y.t.Helper()
	path := y.at(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		y.t.Fatal(err)
	}
	if err := os.WriteFile(path+"~", []byte(content), 0o644); err != nil {
		y.t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		y.t.Fatal(err)
	}
}

func (y *toy) remove(name string) {
	y.t.Helper()
	if err := os.Remove(y.at(name)); err != nil {
		y.t.Fatal(err)
	}
}

func (y *toy) put(payload []byte) {
	y.t.Helper()
	if err := y.store.Put(y.cmd, y.deps, ahead(), payload); err != nil {
		y.t.Fatal(err)
	}
}

// get looks the toy's command up, in a store that remembers nothing.
func (y *toy) get() (payload []byte, ok bool) {
	y.t.Helper()
	y.store = y.open(y.store.limit)
	payload, _, ok, err := y.store.Get(y.cmd)
	if err != nil {
		y.t.Fatal(err)
	}
	return payload, ok
}

func (y *toy) wantHit(want []byte) {
	y.t.Helper()
	got, ok := y.get()
	if !ok {
		y.t.Fatal("miss, want a hit")
	}
	if !bytes.Equal(got, want) {
		y.t.Fatalf("got a result of %d bytes, want another one, of %d", len(got), len(want))
	}
}

func (y *toy) wantMiss() {
	y.t.Helper()
	if _, ok := y.get(); ok {
		y.t.Fatal("hit, want a miss")
	}
}

// payload is a result of some size that does not compress.
func payload(seed, size int) []byte {
	out := make([]byte, size)
	x := uint64(seed)*2654435761 + 88172645463325252
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return out
}

// unit is the toy's command as a compile of another output.
func (y *toy) unit(n int) Command {
	c := y.cmd
	c.Args = append(append([]string{}, c.Args...), fmt.Sprintf("-DUNIT=%d", n))
	return c
}

// storeFiles lists the entries of one kind.
func (y *toy) storeFiles(kind string) []string {
	y.t.Helper()
	found, err := filepath.Glob(filepath.Join(y.at("store"), kind, "*", "*"))
	if err != nil {
		y.t.Fatal(err)
	}
	return found
}
