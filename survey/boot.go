package survey

// Testing many modules. A boot costs more than a module's test, so one guest
// tests many modules, one after the other: load what is to be patched, load the
// livepatch, wait for the transition, disable it, wait again, remove it. What
// comes before the first failure in a guest is judged by that guest; the module
// that failed is tried again in a guest of its own, whose verdict counts, and
// those behind it in another guest: a kernel that has warned proves nothing.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// Bounds of a guest.
const (
	perGuest      = 12               // modules at most
	guestMemory   = 1024             // MiB: many drivers stay loaded
	bootAllowance = 4 * time.Minute  // of the host, which may be busy
	perModule     = 90 * time.Second // likewise
	maxBoots      = 3                // of a guest that dies before any module is tried
)

// trial is one module to test.
type trial struct {
	index  int    // of the entry
	name   string // of the module, as its file is called
	path   string
	loaded []string // modules that it patches
	first  int      // index of its first step in the guest
	began  time.Time
}

// bootable tells why a kernel cannot be booted.
func bootable(k *pipeline.Kernel) error {
	if k.BzImage == "" {
		return errors.New("no kernel to boot: this kernel was given without a vmlinuz; leave --test out")
	}
	if _, err := os.Stat(k.BzImage); err != nil {
		return fmt.Errorf("no kernel to boot: %w; run make bzImage, or leave --test out", err)
	}
	return nil
}

// testAll tests all modules that were built and not tested yet.
func (s *survey) testAll(ctx context.Context) error {
	var todo []trial
	for i, st := range s.states {
		r := &st.Result
		if r.Module == "" {
			continue
		}
		if r.Test != nil && st.TestKey == s.testKey(r) {
			continue
		}
		r.Test, r.Verdict = nil, Built
		todo = append(todo, trial{index: i, name: s.names[i], path: s.dir.file(r.Module), loaded: patchedModules(r)})
	}
	if len(todo) == 0 {
		return nil
	}
	p := s.begin("test", fmt.Sprintf("boot %s and test %s", s.o.Kernel.Release, count(len(todo), "module", "modules")), len(todo))
	q := &queue{}
	guests := max(s.o.Jobs, (len(todo)+perGuest-1)/perGuest)
	for part := range slices.Chunk(todo, max(1, (len(todo)+guests-1)/guests)) {
		q.add(batch{trials: part})
	}
	var g errgroup.Group
	for range s.o.Jobs {
		g.Go(func() error {
			for {
				next, ok := q.take()
				if !ok {
					return nil
				}
				rest, err := s.testBatch(ctx, next, p)
				if err != nil {
					q.stop()
					return err
				}
				for _, b := range rest {
					q.add(b)
				}
				q.finished()
			}
		})
	}
	return g.Wait()
}

// batch is what one guest is to test.
type batch struct {
	trials []trial
	boots  int // that have failed
}

// queue is the batches that wait for a guest. It is empty only when none waits
// and none runs, as a running one may come back in parts.
type queue struct {
	mu      sync.Mutex
	wake    *sync.Cond
	waiting []batch
	running int
	stopped bool
}

func (q *queue) cond() *sync.Cond {
	if q.wake == nil {
		q.wake = sync.NewCond(&q.mu)
	}
	return q.wake
}

func (q *queue) add(b batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, b)
	q.cond().Signal()
}

func (q *queue) take() (batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && q.running > 0 && !q.stopped {
		q.cond().Wait()
	}
	if len(q.waiting) == 0 || q.stopped {
		return batch{}, false
	}
	b := q.waiting[0]
	q.waiting = q.waiting[1:]
	q.running++
	return b, true
}

func (q *queue) finished() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.cond().Broadcast()
}

func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.cond().Broadcast()
}

// patchedModules are the modules whose functions a livepatch redirects.
func patchedModules(r *Result) []string {
	var names []string
	for _, f := range r.Functions {
		if f.Object != codegen.VMLinux && !slices.Contains(names, f.Object) {
			names = append(names, f.Object)
		}
	}
	return names
}

// testKey stands for what a test depended on beside the build.
func (s *survey) testKey(r *Result) string {
	return digest([]byte(strings.Join([]string{s.o.Digest, s.kernel, r.ModuleSHA256}, "\x00")))
}

// bootStep shows that the guest runs at all.
var bootStep = livetest.Show("uname -r")

// steps are those of one module.
func (t trial) steps() []livetest.Step {
	var steps []livetest.Step
	for _, m := range t.loaded {
		// Before the livepatch is there, neither a failure nor a warning is
		// its fault: the guest has few devices.
		load := livetest.Insmod(m)
		load.Expect, load.MayWarn = livetest.Any, true
		steps = append(steps, load, livetest.Show("cat "+initstate(m)))
	}
	steps = append(steps, livetest.Insmod(t.name), livetest.WaitTransition(t.name))
	for _, m := range t.loaded {
		patched := fmt.Sprintf("/sys/kernel/livepatch/%s/%s/patched", modname.Canonical(t.name), m)
		steps = append(steps, livetest.CheckPasses(fmt.Sprintf("! [ -e %s ] || ! [ -e %s ] || grep -q 1 %s", initstate(m), patched, patched)))
	}
	steps = append(steps, livetest.Disable(t.name), livetest.WaitGone(t.name), livetest.Rmmod(t.name))
	for i := range steps {
		steps[i] = steps[i].In(t.name)
	}
	return steps
}

func initstate(module string) string {
	return "/sys/module/" + modname.Canonical(module) + "/initstate"
}

// testBatch tests modules in one guest. It returns those that it could not
// judge, as further batches.
func (s *survey) testBatch(ctx context.Context, b batch, p *part) ([]batch, error) {
	trials := b.trials
	steps := []livetest.Step{bootStep}
	var modules []string
	for i := range trials {
		trials[i].first = len(steps)
		steps = append(steps, trials[i].steps()...)
		modules = append(modules, trials[i].path)
	}
	report, err := s.script(ctx, livetest.Guest{
		Kernel: livetest.Kernel{BzImage: s.o.Kernel.BzImage, FindModule: func(name string) (string, bool) {
			path, err := s.o.Kernel.FindModule(name)
			return path, err == nil
		}},
		Modules: modules, Accel: s.o.Accel, MemoryMB: guestMemory,
		Timeout: bootAllowance + time.Duration(len(trials))*perModule,
		Progress: func(e livetest.Event) {
			for i := range trials {
				if trials[i].first == e.Index && e.Result == nil {
					trials[i].began = p.begin(trials[i].index)
				}
			}
		},
	}, steps)
	if err != nil {
		return nil, err
	}
	if report.Steps[0].Exit != 0 { // not even the first command ran
		if b.boots++; b.boots < maxBoots {
			return []batch{b}, nil
		}
		return nil, fmt.Errorf("the guest does not start: %s\n%s", strings.Join(report.Problems, "\n"), strings.Join(report.Console, "\n"))
	}
	bad := len(trials)
	if !report.OK && len(trials) > 1 {
		bad = firstBad(report, trials)
	}
	for _, t := range trials[:bad] {
		if err := s.tested(t, report, len(trials), p); err != nil {
			return nil, err
		}
	}
	var rest []batch
	for _, part := range [][]trial{trials[bad:min(bad+1, len(trials))], trials[min(bad+1, len(trials)):]} {
		if len(part) > 0 {
			rest = append(rest, batch{trials: part})
		}
	}
	return rest, nil
}

// firstBad is the index of the first module that a guest found fault with: the
// one whose step failed, or during whose steps the kernel warned; the last one
// that began, if the fault is of no step.
func firstBad(report *livetest.Report, trials []trial) int {
	bad := len(report.Steps)
	for i, st := range report.Steps {
		if !st.OK {
			bad = i
			break
		}
	}
	for _, l := range report.Log {
		bad = min(bad, l.Step)
	}
	i := len(trials) - 1
	for i > 0 && trials[i].first > bad {
		i--
	}
	return i
}

// tested judges a module by its part of a guest's report, and records that.
func (s *survey) tested(t trial, report *livetest.Report, inGuest int, p *part) error {
	steps := report.Steps[t.first : t.first+len(t.steps())]
	result := &Test{Accel: string(report.Accel), Problems: []string{}}
	for i, st := range steps {
		result.Seconds += st.Seconds
		if st.Kind == livetest.KindInsmod && st.Expect == livetest.Any && strings.TrimSpace(steps[i+1].Output) != "live" {
			result.NotLoaded = append(result.NotLoaded, st.Subject)
		}
	}
	result.Seconds = rounded(result.Seconds)
	log := ""
	verdict := Tested
	if inGuest == 1 && !report.OK {
		verdict = TestFailed
		result.Problems = append(result.Problems, report.Problems...)
		for _, l := range report.Log {
			result.Log = append(result.Log, l.Text)
		}
		log = testLog(report)
	}
	st := *s.states[t.index]
	st.Result.Test, st.Result.Verdict, st.TestKey = result, verdict, s.testKey(&st.Result)
	if err := s.writeLog(t.name, &st.Result, log); err != nil {
		return err
	}
	if err := s.dir.save(t.name, &st); err != nil {
		return err
	}
	p.end(t.index, &st, t.began)
	return nil
}

// testLog is all that a guest said.
func testLog(r *livetest.Report) string {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p)
	}
	for _, st := range r.Steps {
		fmt.Fprintf(&b, "step: %s: exit status %d\n%s", st.Name(), st.Exit, st.Output)
	}
	for _, l := range r.KernelLog {
		fmt.Fprintf(&b, "kernel: %s\n", l.Text)
	}
	for _, l := range r.Console {
		fmt.Fprintf(&b, "console: %s\n", l)
	}
	return b.String()
}
