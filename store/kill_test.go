package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// killedVariable names the store that this test program is to change until it is
// killed.
const killedVariable = "KLPC_TEST_STORE_KILLED"

// TestKill kills a process, as kill -9 does, that changes a store on the real
// file system, at any moment, again and again. Each time the store must be
// whole, and work.
func TestKill(t *testing.T) {
	if root := os.Getenv(killedVariable); root != "" {
		changeForEver(t, root)
	}
	root := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	seen := 0
	for i := range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), killedVariable+"="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it has begun
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(30000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
			t.Fatalf("it was not killed: %v", cmd.ProcessState)
		}
		s, k := Open(root), &kernel{boot: fmt.Sprint("check", i)}
		m, err := s.Read(testRelease)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Patches {
			seen++
			if _, err := s.Module(testRelease, &p); err != nil {
				t.Fatal(err)
			}
		}
		if err := restore(s, k); err != nil {
			t.Fatal(err)
		}
	}
	if seen == 0 {
		t.Error("no process was killed while there was something in the store")
	}
}

// changeForEver changes a store until somebody kills this process.
func changeForEver(t *testing.T, root string) {
	s := Open(root)
	fmt.Println("begun")
	for i := 0; ; i++ {
		k := &kernel{boot: fmt.Sprint(os.Getpid(), i)}
		for _, a := range []act{
			install("one", fmt.Sprint(i%3), true), install("two", fmt.Sprint(i%2), false), accept("two"),
			restore, markClean, uninstall("one"),
		} {
			if err := a(s, k); err != nil {
				t.Fatal(err)
			}
		}
	}
}
