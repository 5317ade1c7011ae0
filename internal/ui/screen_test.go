package ui

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, func() (int, int) { return 8, 3 })
	show := func(page, want string) {
		t.Helper()
		out.Reset()
		if err := s.Show(page); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, out.String()); d != "" {
			t.Error(d)
		}
	}
	if d := cmp.Diff("\x1b[?1049h\x1b[?25l", out.String()); d != "" {
		t.Error(d)
	}
	show("one\ntwo", "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J")
	show("a line that is long\x1b[2J\nb", "\x1b[Ha line …\x1b[K\r\nb\x1b[K\x1b[J")
	show("1\n2\n3\n4", "\x1b[H1\x1b[K\r\n2\x1b[K\r\n(2 more…\x1b[K\x1b[J")
	out.Reset()
	s.Close()
	if d := cmp.Diff("\x1b[?25h\x1b[?1049l1\n2\n3\n4\n", out.String()); d != "" {
		t.Error(d)
	}
}
