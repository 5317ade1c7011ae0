package livepatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LockPath is the lock that serialises calls that change which livepatches are
// loaded or stored.
const LockPath = "/run/klpc.lock"

// lockPoll is how often a held lock is tried again.
const lockPoll = 100 * time.Millisecond

// Lock takes a lock file, flock(2), and writes into it who holds it: this process
// and what it does, for people. If another process holds it, waiting is called
// once with what that one has written; after limit it is an error. The file
// stays: removing it would let two processes each lock their own.
func Lock(ctx context.Context, path, what string, limit time.Duration, waiting func(holder string)) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	deadline := time.Now().Add(limit)
	for first := true; ; first = false {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if first {
			waiting(holder(f))
		}
		if !time.Now().Before(deadline) {
			defer f.Close()
			return nil, fmt.Errorf("%s is held by %s, for longer than %s: wait for it to end, or end it, and try again", path, holder(f), short(limit))
		}
		if err := sleep(ctx, lockPoll); err != nil {
			f.Close()
			return nil, fmt.Errorf("wait for %s: %w", path, err)
		}
	}
	text := fmt.Sprintf("klpc %s (process %d)\n", what, os.Getpid())
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() {
		_ = f.Truncate(0) // closing it is what frees it
		f.Close()
	}, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// holder is what the holder of a lock has written.
func holder(f *os.File) string {
	const most = 512 // bytes; nobody but klpc writes there
	text, err := io.ReadAll(io.NewSectionReader(f, 0, most))
	if who := strings.TrimSpace(string(text)); err == nil && who != "" {
		return who
	}
	return "another process"
}

// sleep waits, or returns why it must not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
