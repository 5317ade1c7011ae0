package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// No more programs run at once than there are slots, whoever starts them.
func TestSlots(t *testing.T) {
	dir := t.TempDir()
	ctx := WithSlots(t.Context(), NewSlots(2))
	// Each says how many run while it does.
	script := `touch "$1"; ls | wc -l; sleep 0.05; rm "$1"`
	var g errgroup.Group
	most := make([]string, 12)
	for i := range most {
		g.Go(func() error {
			r, err := Do(ctx, Cmd{Dir: dir, Args: []string{"sh", "-c", script, "sh", string(rune('a' + i))}})
			most[i] = strings.TrimSpace(string(r.Stdout))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, n := range most {
		if n != "1" && n != "2" {
			t.Errorf("program %d: %q ran at once", i, n)
		}
	}
}

// Who waits for a slot stops waiting when the context ends, and starts nothing.
func TestSlotsInterrupted(t *testing.T) {
	slots := NewSlots(1)
	slots <- struct{}{}
	ctx, cancel := context.WithTimeout(WithSlots(t.Context(), slots), 50*time.Millisecond)
	defer cancel()
	mark := filepath.Join(t.TempDir(), "started")
	_, err := Do(ctx, Cmd{Args: []string{"touch", mark}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Error("the program was started")
	}
}

// A meter adds up what programs use, those that fail too.
func TestMeter(t *testing.T) {
	var m Meter
	ctx := WithMeter(t.Context(), &m)
	before := m.CPU()
	for _, code := range []string{"0", "1"} {
		_, err := Do(ctx, Cmd{Args: []string{"sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; exit " + code}})
		if failed := err != nil; failed != (code == "1") {
			t.Fatal(err)
		}
		if now := m.CPU(); now <= before {
			t.Errorf("exit %s: %v used, %v before", code, now, before)
		} else {
			before = now
		}
	}
}
