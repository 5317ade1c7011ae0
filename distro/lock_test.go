package distro

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	quiet := func() { t.Error("waits for a free lock") }
	unlock, err := lock(t.Context(), path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	got := make(chan error)
	var second func()
	go func() {
		var err error
		second, err = lock(t.Context(), path, func() { close(waits) })
		got <- err
	}()
	<-waits
	select {
	case err := <-got:
		t.Fatalf("locked twice (%v)", err)
	case <-time.After(2 * lockPoll):
	}
	unlock()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = lock(ctx, path, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	second()
	third, err := lock(t.Context(), path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	third()
}

// TestLockOutlivesKill checks that a program which a killed process left
// behind still holds its lock, and that it holds none that was released.
func TestLockOutlivesKill(t *testing.T) {
	const helper = "KLPC_TEST_LOCK"
	if path := os.Getenv(helper); path != "" {
		if _, err := lock(t.Context(), path, func() {}); err != nil {
			t.Fatal(err)
		}
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("child", child.Process.Pid)
		os.Exit(0) // no unlock, as by kill -9
	}
	path := filepath.Join(t.TempDir(), "x.lock")
	held := func() bool {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockOutlivesKill$")
	cmd.Env = append(os.Environ(), helper+"="+path)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(out), "child %d", &pid); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if !held() {
		t.Error("the lock ends before the child that may still write")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); held() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	unlock, err := lock(t.Context(), path, func() { t.Error("waits") })
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	unlock()
	if held() {
		t.Error("a child keeps a lock that was released")
	}
	if err := errors.Join(child.Process.Kill(), ignoreExit(child.Wait())); err != nil {
		t.Error(err)
	}
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
