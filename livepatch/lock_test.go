package livepatch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// take takes the lock and keeps what it said about its holder.
func take(ctx context.Context, path, what string, limit time.Duration) (unlock func(), holder string, err error) {
	unlock, err = Lock(ctx, path, what, limit, func(h string) { holder = h })
	return unlock, holder, err
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, holder, err := take(t.Context(), path, "load a", 0)
	if err != nil || holder != "" {
		t.Fatalf("%q %v", holder, err)
	}
	t.Run("held", func(t *testing.T) {
		_, holder, err := take(t.Context(), path, "load b", 10*time.Millisecond)
		if !regexp.MustCompile(`^klpc load a \(process \d+\)$`).MatchString(holder) {
			t.Errorf("held by %q", holder)
		}
		if want := regexp.MustCompile(`lock is held by klpc load a \(process \d+\), for longer than 10ms: `); err == nil || !want.MatchString(err.Error()) {
			t.Errorf("%v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := take(ctx, path, "load b", time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	time.AfterFunc(50*time.Millisecond, unlock)
	again, holder, err := take(t.Context(), path, "load c", time.Minute)
	if err != nil || holder == "" {
		t.Fatalf("%q %v", holder, err)
	}
	again()
	if text, err := os.ReadFile(path); err != nil || len(text) > 0 {
		t.Errorf("a free lock says %q %v", text, err)
	}
}

func TestLockUnusable(t *testing.T) {
	if _, _, err := take(t.Context(), filepath.Join(t.TempDir(), "missing", "lock"), "load a", time.Minute); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
