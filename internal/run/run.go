// Package run starts other programs: the one place where processes are made,
// waited for and killed.
//
// It knows nothing of kernels or compilers.
package run

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Cmd is one program to run.
type Cmd struct {
	Dir   string   // working directory; empty: the caller's
	Args  []string // Args[0] is the program
	Env   []string // added to the caller's environment, later entries win
	Stdin io.Reader
	// Stdout, if set, receives standard output; otherwise it is returned.
	Stdout io.Writer
	// Log, if set, receives a copy of everything the program prints.
	Log io.Writer
}

// Result is what a finished program left behind.
type Result struct {
	Stdout []byte
	Stderr []byte
	Wall   time.Duration
	User   time.Duration // CPU seconds in user mode, children included
	Sys    time.Duration // CPU seconds in the kernel, children included
}

// Error is a program that did not exit with 0.
type Error struct {
	Program string
	Err     error
	Output  string // everything it printed on standard error, or on standard output if that is empty
}

func (e *Error) Error() string {
	msg := fmt.Sprintf("%s: %v", e.Program, e.Err)
	if t := Tail(e.Output, 6); t != "" {
		msg += ":\n" + t
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

// Tail returns the last n lines of s that are not blank.
func Tail(s string, n int) string {
	var keep []string
	for _, l := range strings.Split(s, "\n") {
		if strings.TrimSpace(l) != "" {
			keep = append(keep, l)
		}
	}
	if len(keep) > n {
		keep = keep[len(keep)-n:]
	}
	return strings.Join(keep, "\n")
}

// Do runs a program in a process group of its own and waits for it. When ctx
// ends, the whole group is killed, so that no grandchild stays behind.
func Do(ctx context.Context, c Cmd) (Result, error) {
	var out, errb bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin = c.Stdin
	stdout := io.Writer(&out)
	if c.Stdout != nil {
		stdout = c.Stdout
	}
	stderr := io.Writer(&errb)
	if c.Log != nil {
		stdout = io.MultiWriter(stdout, c.Log)
		stderr = io.MultiWriter(stderr, c.Log)
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second

	release, err := take(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", filepath.Base(c.Args[0]), err)
	}
	start := time.Now()
	err = cmd.Run()
	release()
	res := Result{Stdout: out.Bytes(), Stderr: errb.Bytes(), Wall: time.Since(start)}
	if ps := cmd.ProcessState; ps != nil {
		res.User, res.Sys = ps.UserTime(), ps.SystemTime()
		meter(ctx, res)
	}
	if err == nil {
		return res, nil
	}
	if ctx.Err() != nil {
		return res, fmt.Errorf("%s: %w", filepath.Base(c.Args[0]), ctx.Err())
	}
	text := errb.String()
	if strings.TrimSpace(text) == "" {
		text = out.String()
	}
	return res, &Error{Program: filepath.Base(c.Args[0]), Err: err, Output: text}
}
