package livetest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/internal/vm"
)

func TestResult(t *testing.T) {
	tests := []struct {
		name    string
		step    Step
		end     *stepEnd
		ok      bool
		problem string
	}{
		{"passes", CheckPasses("c"), &stepEnd{ended: true}, true, ""},
		{"must pass", CheckPasses("c"), &stepEnd{ended: true, exit: 2}, false, "failed (exit status 2), but must pass"},
		{"fails", CheckFails("c"), &stepEnd{ended: true, exit: 2}, true, ""},
		{"must fail", CheckFails("c"), &stepEnd{ended: true}, false, "succeeded, but must fail"},
		{"hangs instead of failing", CheckFails("c"), &stepEnd{ended: true, exit: 137, seconds: 9.5}, false, "was killed after 10 s"},
		{"exits with 137 by itself", CheckFails("c"), &stepEnd{ended: true, exit: 137, seconds: 1}, true, ""},
		{"anything", Show("c"), &stepEnd{ended: true, exit: 2}, true, ""},
		{"not loaded", Insmod("m"), &stepEnd{ended: true, exit: 1}, false, "failed (exit status 1)"},
		{"refused", InsmodFails("m"), &stepEnd{ended: true, exit: 1}, true, ""},
		{"not even tried", InsmodFails("m"), &stepEnd{ended: true, exit: 125}, false,
			"failed: a module that it needs could not be loaded"},
		{"not begun", Exec("c"), nil, false, "did not run"},
		{"not ended", Exec("c"), &stepEnd{}, false, "began but never ended"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := result(tt.step, tt.end, 10*time.Second)
			if got.OK != tt.ok || got.Problem != tt.problem {
				t.Errorf("got %v, %q", got.OK, got.Problem)
			}
		})
	}
}

func TestNewReport(t *testing.T) {
	steps := []Step{
		CheckFails("look").In(PhaseBefore), Insmod("lp").In(PhaseLoading), CheckPasses("look").In(PhasePatched),
	}
	const hello = "@klpc hello\n@klpc begin 0 1\n@klpc end 0 1 1 0 0\n\n@klpc begin 1 1\n"
	const logged = "[1] klpc: step 0 begins\n[2] klpc: step 1 begins\n"
	log := func(s string) string { return "@klpc log " + strconv.Itoa(len(s)) + "\n" + s + "\n@klpc done\n" }
	tests := []struct {
		name, port string
		end        vm.Result
		want       []string // problems
	}{
		{"all holds", hello + "@klpc end 1 0 2 0 0\n\n@klpc begin 2 2\n@klpc end 2 0 2 3 0\nyes\n" + log(logged), vm.Result{}, nil},
		{"a check fails", hello + "@klpc end 1 0 2 0 0\n\n@klpc begin 2 2\n@klpc end 2 1 2 3 0\nno\n\n" + log(logged), vm.Result{},
			[]string{"patched: check: look failed (exit status 1), but must pass:\nno"}},
		{"not loaded", hello + "@klpc end 1 1 2 5 0\nsorry\n" + log(logged+"[3] lp: Unknown symbol f (err -2)\n"), vm.Result{},
			[]string{
				"loading: load lp failed (exit status 1):\nsorry",
				"lines of the kernel log that tell of a fault: 1, the first: [3] lp: Unknown symbol f (err -2)",
				"1 of 3 steps did not run",
			}},
		{"panic", hello, vm.Result{Console: []string{"[0] boot", "[1] klpc: step 1 begins", "[2] Kernel panic - not syncing"}},
			[]string{
				"loading: load lp began but never ended",
				"lines of the kernel log that tell of a fault: 1, the first: [2] Kernel panic - not syncing",
				"the guest died in step 2 (load lp)",
				"1 of 3 steps did not run",
			}},
		{"hang", hello, vm.Result{End: vm.TimedOut, Wall: 7 * time.Second},
			[]string{
				"loading: load lp began but never ended",
				"the guest was stopped after 7 s, in step 2 (load lp): it hangs or is too slow",
				"1 of 3 steps did not run",
			}},
		{"no boot", "", vm.Result{}, []string{"the guest died while it booted", "3 of 3 steps did not run"}},
		{"log too short", hello + "@klpc end 1 0 2 0 0\n\n@klpc begin 2 2\n@klpc end 2 0 2 0 0\n\n" + log("[9] the end\n"), vm.Result{},
			[]string{"the kernel log does not reach back to the first step: it cannot be judged"}},
		{"junk", hello + "@klpc end 1 0 2 0 0\n\nx\n@klpc begin 2 2\n@klpc end 2 0 2 0 0\n\n" + log(logged), vm.Result{},
			[]string{`the second serial port, which only the test itself may use, brought "x": not a line of the protocol`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := newFrames(func(int) {}, func(int, stepEnd) {})
			if _, err := got.Write([]byte(tt.port)); err != nil {
				t.Fatal(err)
			}
			r := newReport(steps, Guest{StepLimit: time.Minute}, got, &tt.end)
			if d := cmp.Diff(tt.want, r.Problems); d != "" {
				t.Error(d)
			}
			if r.OK != (tt.want == nil) || len(r.Steps) != len(steps) {
				t.Errorf("OK %v, %d steps", r.OK, len(r.Steps))
			}
		})
	}
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "tool")
	if err := os.WriteFile(tool, []byte("x"), 0o750); err != nil {
		t.Fatal(err)
	}
	got, err := readFiles(map[string]string{"/opt/tool": tool, "b": tool})
	if err != nil {
		t.Fatal(err)
	}
	want := []vm.File{
		{Path: "opt/tool", Mode: vm.ModeRegular | 0o750, Data: []byte("x")},
		{Path: "b", Mode: vm.ModeRegular | 0o750, Data: []byte("x")},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := readFiles(map[string]string{"a": filepath.Join(dir, "none"), "b": dir}); err == nil ||
		!strings.Contains(err.Error(), "none: no such file") || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("got %v", err)
	}
}
