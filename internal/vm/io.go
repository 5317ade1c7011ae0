package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pathOf is a path by which another process of this user opens f, though f may
// have no name.
func pathOf(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// memoryFile makes a file that has no name and vanishes with this process.
func memoryFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// port is the host's side of the guest's second serial port.
type port struct {
	read, write *os.File
	copied      chan struct{} // closed when everything was read; nil before copyTo
	once        sync.Once
}

func newPort() (*port, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &port{read: r, write: w}, nil
}

// copyTo hands everything that arrives to w, until close.
func (p *port) copyTo(w io.Writer) {
	p.copied = make(chan struct{})
	go func() {
		defer close(p.copied)
		// w never fails, see life.port.
		_, _ = io.Copy(w, p.read)
	}()
}

// close waits until all that was written has been handed on. QEMU must be gone;
// one that cannot be killed keeps its end open, hence the limit.
func (p *port) close() {
	p.once.Do(func() {
		p.write.Close()
		if p.copied != nil {
			select {
			case <-p.copied:
			case <-time.After(killGrace):
			}
		}
		p.read.Close()
	})
}

// kvmInternalError is what QEMU prints when it stops the guest for good because
// KVM could not go on.
const kvmInternalError = "KVM internal error"

// life ends a guest that has printed nothing for too long and has not yet spoken
// on its port. It is written to with all that the guest and QEMU print.
type life struct {
	cancel context.CancelCauseFunc
	limit  time.Duration

	mu     sync.Mutex
	timer  *time.Timer // nil: no limit, or the port spoke
	spoken bool
	recent []byte // the end of what was printed, for a text that comes in two pieces
}

func newLife(cancel context.CancelCauseFunc, limit time.Duration) *life {
	l := &life{cancel: cancel, limit: limit}
	if limit > 0 {
		l.timer = time.AfterFunc(limit, func() {
			cancel(fmt.Errorf("the guest gave no sign of life for %v", limit))
		})
	}
	return l
}

func (l *life) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return len(b), nil
	}
	l.timer.Reset(l.limit)
	seen := append(l.recent, b...)
	if bytes.Contains(seen, []byte(kvmInternalError)) {
		l.cancel(errors.New(kvmInternalError))
	}
	l.recent = bytes.Clone(seen[max(0, len(seen)-len(kvmInternalError)):])
	return len(b), nil
}

// port returns the writer for what comes from the guest's port: it hands on to w,
// which may be nil, and takes the first byte for the guest being alive.
func (l *life) port(w io.Writer) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		l.mu.Lock()
		l.spoken = true
		l.stopLocked()
		l.mu.Unlock()
		if w != nil {
			// A reader that fails must not stop the guest in the middle of a write.
			_, _ = w.Write(b)
		}
		return len(b), nil
	})
}

func (l *life) spoke() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spoken
}

func (l *life) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopLocked()
}

func (l *life) stopLocked() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// tailSize is how much of the console is kept, in bytes.
const tailSize = 256 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool // the beginning was dropped
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*tailSize {
		t.buf = bytes.Clone(t.buf[len(t.buf)-tailSize:])
		t.cut = true
	}
	return len(b), nil
}

// lines returns the whole lines that were kept, without their line ends.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for line := range strings.Lines(string(t.buf)) {
		out = append(out, strings.TrimRight(line, "\r\n"))
	}
	if t.cut && len(out) > 0 {
		out = out[1:]
	}
	return out
}
