package ui

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scripted is a display whose clock the test moves.
type scripted struct {
	*Progress
	out   bytes.Buffer
	clock time.Time
}

func script(mode Mode, columns int) *scripted {
	s := &scripted{clock: time.Unix(1000, 0)}
	s.Progress = newProgress(&s.out, mode)
	s.now = func() time.Time { return s.clock }
	s.start = s.clock
	s.width = func() int { return columns }
	return s
}

func (s *scripted) after(seconds float64) *scripted {
	s.clock = s.clock.Add(time.Duration(seconds * float64(time.Second)))
	return s
}

// play shows the same two steps in any mode.
func (s *scripted) play() string {
	s.Step("apply")
	s.after(1.25).Note("hunk 1 is off\nby 2 lines")
	s.Begin(Step{Name: "compile", Text: "compile 2 units", Index: 4, Total: 7})
	s.Unit(Unit{ID: 0, Name: "kernel/fork.c", Done: 0, Total: 2})
	s.after(2).Unit(Unit{ID: 0, Name: "kernel/fork.c", Done: 1, Total: 2, Ended: true, Elapsed: 2 * time.Second})
	s.after(1).Close()
	s.Close()
	s.Step("too late")
	return s.out.String()
}

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		mode Mode
		want []string
	}{
		{Plain, []string{
			"[  0.0s] apply\n", "klpc: note: hunk 1 is off\n  by 2 lines\n", "[  1.2s] compile 2 units\n",
		}},
		{Quiet, []string{"klpc: note: hunk 1 is off\n  by 2 lines\n"}},
		{TTY, []string{
			clearLine, "     0s apply",
			clearLine, "klpc: note: hunk 1 is off\n  by 2 lines\n",
			clearLine, "     1s apply",
			clearLine, "   1.2s apply\n",
			clearLine, "     0s [4/7] compile 2 units",
			clearLine, "     0s [4/7] compile 2 units [>              ] 0/2, slowest kernel/fork.c 0.0s",
			clearLine, "     2s [4/7] compile 2 units [=======>       ] 1/2, slowest kernel/fork.c 2.0s",
			clearLine, "   3.0s [4/7] compile 2 units, slowest kernel/fork.c 2.0s\n",
		}},
		{JSON, []string{
			`{"event":"step","elapsed":0,"step":"","index":0,"total":0,"text":"apply"}` + "\n",
			`{"event":"note","elapsed":1.25,"text":"hunk 1 is off\nby 2 lines"}` + "\n",
			`{"event":"step-end","elapsed":1.25,"step":"","seconds":1.25}` + "\n",
			`{"event":"step","elapsed":1.25,"step":"compile","index":4,"total":7,"text":"compile 2 units"}` + "\n",
			`{"event":"unit-begin","elapsed":1.25,"step":"compile","unit":"kernel/fork.c","done":0,"total":2,"seconds":0}` + "\n",
			`{"event":"unit","elapsed":3.25,"step":"compile","unit":"kernel/fork.c","done":1,"total":2,"seconds":2}` + "\n",
			`{"event":"step-end","elapsed":4.25,"step":"compile","seconds":3}` + "\n",
		}},
	} {
		t.Run(string(tt.mode), func(t *testing.T) {
			if d := cmp.Diff(strings.Join(tt.want, ""), script(tt.mode, 80).play()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLinesNeverWrap(t *testing.T) {
	for _, columns := range []int{1, 2, 10, 20, 40} {
		s := script(TTY, columns)
		s.Step("preprocess 1204 units that may read a changed header of the größte kind")
		s.Unit(Unit{Done: 17, Total: 1204, Ended: true, Name: "drivers/gpu/drm/amd/display/dc/dml/dcn32/display_mode_vba_util_32.c"})
		s.Close()
		for _, line := range strings.FieldsFunc(strings.ReplaceAll(s.out.String(), clearLine, "\n"), func(r rune) bool { return r == '\n' }) {
			if n := len([]rune(line)); n >= columns {
				t.Errorf("%d columns: a line of %d: %q", columns, n, line)
			}
		}
	}
}

func TestTextMovesNoCursor(t *testing.T) {
	s := script(TTY, 80)
	s.Step("a\nb\x1b[2Jc\td")
	if want, got := clearLine+"     0s a b [2Jc d", s.out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A regular file and a buffer are no terminals, whatever TERM says.
func TestAutoIsPlainOffATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range []*Progress{NewProgress(f, Auto), NewProgress(&bytes.Buffer{}, Auto)} {
		if p.mode != Plain {
			t.Errorf("mode %s", p.mode)
		}
		p.Close()
	}
}

// The clock redraws a step that says nothing by itself, and ends with Close.
func TestClock(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out, TTY)
	p.Step("wait")
	deadline := time.Now().Add(5 * time.Second)
	for text := ""; strings.Count(text, "wait") < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("not redrawn: %q", text)
		}
		time.Sleep(20 * time.Millisecond)
		p.mu.Lock()
		text = out.String()
		p.mu.Unlock()
	}
	p.Close()
	if !strings.HasSuffix(out.String(), "s wait\n") {
		t.Errorf("it does not end in a finished line: %q", out.String())
	}
}

func TestSetMode(t *testing.T) {
	for _, name := range Modes() {
		var m Mode
		if err := m.Set(name); err != nil || m.String() != name {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	m := Auto
	err := m.Set("loud")
	if err == nil || err.Error() != "want one of auto, plain, tty, quiet, json" || m != Auto {
		t.Errorf("loud: %v, %v", m, err)
	}
}
