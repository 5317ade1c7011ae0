package livetest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// decoded is what the tests compare of the frames.
type decoded struct {
	Events []string
	Log    string
	Done   bool
	Junk   []string
}

func decode(t *testing.T, pieces ...string) decoded {
	t.Helper()
	var got decoded
	f := newFrames(
		func(i int) { got.Events = append(got.Events, fmt.Sprintf("begin %d", i)) },
		func(i int, e stepEnd) {
			got.Events = append(got.Events, fmt.Sprintf("end %d: %d %q cut %d, %.2f s", i, e.exit, e.output, e.cut, e.seconds))
		})
	for _, p := range pieces {
		if n, err := f.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if f.log != nil {
		got.Log = *f.log
	}
	got.Done, got.Junk = f.done, f.junk
	return got
}

func TestFrames(t *testing.T) {
	const whole = "@klpc hello\n@klpc begin 0 1.50\n@klpc end 0 1 2.25 11 0\n@klpc done\n\n" +
		"@klpc begin 1 3.00\n@klpc end 1 137 3.50 0 700\n\n@klpc log 4\na\nb\n\n@klpc done\n"
	wholeWant := decoded{
		Events: []string{"begin 0", `end 0: 1 "@klpc done\n" cut 0, 0.75 s`, "begin 1", `end 1: 137 "" cut 700, 0.50 s`},
		Log:    "a\nb\n", Done: true,
	}
	var bytewise []string
	for _, b := range []byte(whole) {
		bytewise = append(bytewise, string(rune(b)))
	}
	tests := []struct {
		name   string
		pieces []string
		want   decoded
	}{
		{"at once", []string{whole}, wholeWant},
		{"byte by byte", bytewise, wholeWant},
		{"cut off in the output", []string{"@klpc begin 0 1.0\n@klpc end 0 0 2.0 10 0\nabc"}, decoded{Events: []string{"begin 0"}}},
		{"junk", []string{"hello\n@klpc hello\n"}, decoded{Junk: []string{`"hello": not a line of the protocol`}}},
		{"end without begin", []string{"@klpc end 0 0 1.0 0 0\n"}, decoded{Junk: []string{`"@klpc end 0 0 1.0 0 0": not a line of the protocol`}}},
		{"bad number", []string{"@klpc log -1\n@klpc log x\n"}, decoded{Junk: []string{
			`"@klpc log -1": "-1" is not a number`, `"@klpc log x": "x" is not a number`}}},
		{"missing number", []string{"@klpc begin 0\n"}, decoded{Junk: []string{`"@klpc begin 0": not a line of the protocol`}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, decode(t, tt.pieces...)); d != "" {
				t.Error(d)
			}
		})
	}
}
