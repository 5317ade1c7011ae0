package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file that is locked while the store changes.
const lockName = "lock"

// lockPoll is how often a lock is tried that another process holds.
const lockPoll = 50 * time.Millisecond

// Lock waits until no other process changes the store, and keeps others from it
// until unlock is called or this process ends, however it ends. waiting, which
// may be nil, is called once if somebody else has it.
func (s *Store) Lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	if err := makeRoot(s.root); err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.root, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock the store: %w", os.NewSyscallError("flock", err))
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock the store: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}
