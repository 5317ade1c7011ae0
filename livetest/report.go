package livetest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/vm"
)

// lastLines is how much of the console is shown when a guest died.
const lastLines = 30

// notRun is the exit status of a step that never ended.
const notRun = -1

// Report is the result of a script.
type Report struct {
	OK    bool     // all steps held, the guest ended as it should, no fault was logged
	Accel vm.Accel // what the guest ran on
	Notes []string // what is worth knowing, but no fault
	Steps []StepResult
	// Problems says, in sentences, all that did not hold.
	Problems []string
	Log      []LogLine // lines of the kernel log that tell of a fault
	// KernelLog is all that the kernel logged during the steps.
	KernelLog []LogLine
	Console   []string // the console's last lines, if the guest did not end by itself
	Seconds   float64  // wall clock of the host, from QEMU's start to its end
}

// StepResult is what became of one step.
type StepResult struct {
	Step
	Exit    int    // exit status; -1: it did not run to its end
	Output  string // standard output and error
	Cut     int    // bytes of output that were left out
	OK      bool
	Problem string  // why not OK
	Seconds float64 // guest time
}

// result judges a step by what the guest reported; nil: it was never begun.
func result(s Step, e *stepEnd, limit time.Duration) StepResult {
	r := StepResult{Step: s, Exit: notRun}
	if e == nil {
		r.Problem = "did not run"
		return r
	}
	if !e.ended {
		r.Problem = "began but never ended"
		return r
	}
	r.Exit, r.Output, r.Cut, r.Seconds = e.exit, e.output, e.cut, e.seconds
	switch {
	case e.exit == killed && e.seconds >= limit.Seconds()-1: // the shell counts whole seconds
		r.Problem = fmt.Sprintf("was killed after %.0f s", limit.Seconds())
	case s.met(e.exit):
		r.OK = true
	case s.Kind == KindInsmod && e.exit == dependencyFailed:
		r.Problem = "failed: a module that it needs could not be loaded"
	case s.Expect == Fail:
		r.Problem = "succeeded, but must fail"
	case s.Kind == KindCheck:
		r.Problem = fmt.Sprintf("failed (exit status %d), but must pass", e.exit)
	default:
		r.Problem = fmt.Sprintf("failed (exit status %d)", e.exit)
	}
	return r
}

// newReport puts together what is known when the guest is gone.
func newReport(steps []Step, g Guest, got *frames, end *vm.Result) *Report {
	r := &Report{Accel: end.Accel, Notes: end.Notes, Seconds: end.Wall.Seconds()}
	skipped := 0
	for i, s := range steps {
		res := result(s, got.steps[i], g.StepLimit)
		r.Steps = append(r.Steps, res)
		switch {
		case res.OK:
		case got.steps[i] == nil:
			skipped++
		default:
			r.problem("%s", stepProblem(res))
		}
	}
	log := strings.Join(end.Console, "\n") // all that is left of a guest that died
	if got.log != nil {
		log = *got.log
	}
	r.KernelLog = testLog(log)
	r.Log = faults(r.KernelLog, steps)
	if n := len(r.Log); n > 0 {
		r.problem("lines of the kernel log that tell of a fault: %d, the first: %s", n, r.Log[0].Text)
	}
	for _, j := range got.junk {
		r.problem("the second serial port, which only the test itself may use, brought %s", j)
	}
	if !got.done {
		r.problem("%s", deathProblem(steps, got, end))
		r.Console = end.Console[max(0, len(end.Console)-lastLines):]
	} else if len(steps) > 0 && !strings.Contains(log, markOf(0)) {
		r.problem("the kernel log does not reach back to the first step: it cannot be judged")
	}
	if skipped > 0 {
		r.problem("%d of %d steps did not run", skipped, len(steps))
	}
	r.OK = len(r.Problems) == 0
	return r
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// stepProblem is a sentence about a step that did not hold, with the last lines
// of its output.
func stepProblem(res StepResult) string {
	text := fmt.Sprintf("%s %s", res.Name(), res.Problem)
	if res.Phase != "" {
		text = res.Phase + ": " + text
	}
	lines := strings.Split(strings.TrimRight(res.Output, "\n"), "\n")
	if last := lines[max(0, len(lines)-lastLines):]; res.Output != "" {
		text += ":\n" + strings.Join(last, "\n")
	}
	return text
}

// deathProblem is a sentence about a guest that did not come to its end.
func deathProblem(steps []Step, got *frames, end *vm.Result) string {
	where := "while it booted"
	if last := slices.Sorted(maps.Keys(got.steps)); len(last) > 0 {
		i := last[len(last)-1]
		verb := "after"
		if !got.steps[i].ended {
			verb = "in"
		}
		if i < len(steps) {
			where = fmt.Sprintf("%s step %d (%s)", verb, i+1, steps[i].Name())
		}
	}
	if end.End == vm.TimedOut {
		return fmt.Sprintf("the guest was stopped after %.0f s, %s: it hangs or is too slow", end.Wall.Seconds(), where)
	}
	return fmt.Sprintf("the guest died %s", where)
}

// readFiles reads files of the host for the guest.
func readFiles(paths map[string]string) ([]vm.File, error) {
	var files []vm.File
	var errs []error
	for _, there := range slices.Sorted(maps.Keys(paths)) {
		here := paths[there]
		info, err := os.Stat(here)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		data, err := os.ReadFile(here)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files = append(files, vm.File{
			Path: strings.TrimPrefix(path.Clean("/"+there), "/"),
			Mode: vm.ModeRegular | uint32(info.Mode().Perm()),
			Data: data,
		})
	}
	return files, errors.Join(errs...)
}
