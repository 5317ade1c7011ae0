package e2e

// Builds whose compiles go through the real ccache and a real distcc.

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLaunchers: with ccache the second build finds every compile again; with
// distcc every compile is done by the daemon; the module is always the same.
// klpc's own cache is off.
func TestLaunchers(t *testing.T) {
	needBoot(t)
	t.Parallel()
	tree, program := builtTree(t), buildProgram(t)
	patch := filepath.Join("..", "testdata", "patches", "cmdline.patch")
	build := func(t *testing.T, launcher string, env ...string) []byte {
		t.Helper()
		p := newPlace(t)
		cmd := p.command(t.Context(), program, "--kernel", tree, "--cache-size", "0", "--cc-launcher", launcher, patch)
		cmd.Env = append(cmd.Env, env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return p.module(t)
	}
	want := build(t, "")
	t.Run("ccache", func(t *testing.T) {
		env := "CCACHE_DIR=" + t.TempDir()
		for i, stats := range [][]string{{"cache_miss\t2", "direct_cache_hit\t0"}, {"cache_miss\t2", "direct_cache_hit\t2"}} {
			if i > 0 {
				time.Sleep(time.Second) // ccache does not trust files as new as its result
			}
			if got := build(t, "ccache", env); !bytes.Equal(got, want) {
				t.Errorf("build %d: another module", i+1)
			}
			cmd := exec.Command("ccache", "--print-stats")
			cmd.Env = append(os.Environ(), env)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, s := range stats {
				if !strings.Contains(string(out), s+"\n") {
					t.Errorf("build %d: ccache does not say %q:\n%s", i+1, s, out)
				}
			}
		}
	})
	t.Run("distcc", func(t *testing.T) {
		d := startDistccd(t)
		got := build(t, "distcc", "DISTCC_DIR="+t.TempDir(), "DISTCC_HOSTS="+d.address, "DISTCC_FALLBACK=0")
		if !bytes.Equal(got, want) {
			t.Error("another module")
		}
		said := d.log.String()
		if n := strings.Count(said, "COMPILE_OK"); n != 2 || strings.Count(said, "fs/proc/cmdline.c") < 2 {
			t.Errorf("the daemon has compiled %d units, want 2:\n%s", n, said)
		}
	})
}

// distccd is a daemon on the loopback interface.
type distccd struct {
	address string
	log     logBuffer
}

// logBuffer is what a process that still runs has said.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startDistccd starts a daemon for the duration of the test. As root it works
// as the user distccd of Debian's package, in folders that this one may write.
func startDistccd(t *testing.T) *distccd {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &distccd{address: free.Addr().String()}
	_, port, err := net.SplitHostPort(d.address)
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "distccd", "--daemon", "--no-detach", "--listen", "127.0.0.1", "--port", port,
		"--allow", "127.0.0.1", "--jobs", "2", "--log-stderr", "--log-level", "info")
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it ends by our signal
	})
	for range 100 {
		if c, err := net.Dial("tcp", d.address); err == nil {
			_ = c.Close() // one that asks for nothing
			return d
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("distccd does not answer:\n%s", d.log.String())
	return nil
}
