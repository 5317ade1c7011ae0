package survey

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/internal/run"
	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// Options say what to survey.
type Options struct {
	Kernel  *pipeline.Kernel
	Entries []Entry
	Dir     string // of the atlas
	Jobs    int    // programs at once, in all; 0: one per processor
	Test    bool   // boot the kernel and try the modules
	Accel   vm.Accel
	Restart bool // discard the results of earlier runs
	// Build holds what all builds have in common; patches, names and outputs
	// are set for each.
	Build   pipeline.BuildOptions
	Version string // of klpc, for the atlas
	Digest  string // of klpc's program: results of another one are not used
	// Events tells of the survey's steps, whose units are the patches.
	Events pipeline.Events
}

// survey carries one run along.
type survey struct {
	o      Options
	kernel string // kernelID
	dir    *folder
	names  []string   // of the modules, by entry
	states []*record  // by entry; nil: not done
	news   sync.Mutex // held while a result is taken over and reported
	// script is livetest.Script, except in tests.
	script func(context.Context, livetest.Guest, []livetest.Step) (*livetest.Report, error)
}

// Run tries all patches and writes the atlas. If ctx ends, the atlas holds what
// was done until then, and the error is that of ctx.
func Run(ctx context.Context, o Options) (atlas *Atlas, err error) {
	if o.Jobs <= 0 {
		o.Jobs = runtime.NumCPU()
	}
	s := &survey{o: o, names: moduleNames(o.Entries), states: make([]*record, len(o.Entries)),
		script: livetest.Script}
	// What would fail for each patch, or at the end, fails now.
	if _, err := o.Kernel.Target(nil); err != nil {
		return nil, err
	}
	if o.Test {
		if err := bootable(o.Kernel); err != nil {
			return nil, err
		}
	}
	if s.dir, err = openFolder(o.Dir, o.Restart); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.dir.close()) }()
	if s.kernel, err = kernelID(o.Kernel); err != nil {
		return nil, err
	}
	err = s.buildAll(ctx)
	if err == nil && o.Test {
		err = s.testAll(ctx)
	}
	atlas, writeErr := s.write()
	return atlas, errors.Join(err, writeErr)
}

// write writes the atlas and, if it is complete, tidies up the folder.
func (s *survey) write() (*Atlas, error) {
	var results []Result
	var pending []string
	names := map[string]bool{}
	for i, st := range s.states {
		names[s.names[i]] = true
		if st == nil || s.o.Test && st.Result.Verdict == Built {
			pending = append(pending, s.o.Entries[i].Name)
		}
		if st != nil {
			results = append(results, st.Result)
		}
	}
	a := newAtlas(s.o.Version, s.o.Kernel.Release, s.o.Test, results, pending)
	data, err := encode(a)
	if err != nil {
		return a, err
	}
	page, err := renderHTML(a)
	if err != nil {
		return a, err
	}
	err = errors.Join(
		renameio.WriteFile(filepath.Join(s.o.Dir, atlasJSON), data, 0o644),
		renameio.WriteFile(filepath.Join(s.o.Dir, atlasHTML), page, 0o644))
	if err == nil && a.Complete {
		err = s.dir.keepOnly(names)
	}
	if err != nil {
		return a, fmt.Errorf("write the atlas: %w", err)
	}
	return a, nil
}

func encode(a *Atlas) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(a)
	return b.Bytes(), err
}

// buildAll builds what no earlier run has built.
func (s *survey) buildAll(ctx context.Context) error {
	p := s.begin("build", fmt.Sprintf("try %s", count(len(s.o.Entries), "patch", "patches")), len(s.o.Entries))
	ctx = run.WithSlots(ctx, run.NewSlots(s.o.Jobs))
	var g errgroup.Group
	// One more than there are slots: what one patch does without running a
	// program, another one can use.
	g.SetLimit(s.o.Jobs + 1)
	errs := make([]error, len(s.o.Entries))
	for i := range s.o.Entries {
		g.Go(func() error {
			if errs[i] = ctx.Err(); errs[i] != nil {
				return nil
			}
			began := p.begin(i)
			var r *record
			if r, errs[i] = s.build(ctx, i); errs[i] == nil {
				p.end(i, r, began)
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// part counts the patches of a step of the survey.
type part struct {
	s     *survey
	total int
	done  int // changed and read while survey.news is held
}

// begin reports that a patch begins.
func (p *part) begin(i int) time.Time {
	p.s.tell(func() { p.unit(pipeline.UnitEvent{ID: i, Name: p.s.o.Entries[i].Name}) })
	return time.Now()
}

// end takes a result over and reports it.
func (p *part) end(i int, r *record, began time.Time) {
	p.s.tell(func() {
		p.s.states[i] = r
		p.done++
		p.unit(pipeline.UnitEvent{ID: i, Name: fmt.Sprintf("%s: %s", p.s.o.Entries[i].Name, r.Result.Verdict), Ended: true, Elapsed: time.Since(began)})
	})
}

func (p *part) unit(u pipeline.UnitEvent) {
	u.Done, u.Total = p.done, p.total
	if p.s.o.Events.Unit != nil {
		p.s.o.Events.Unit(u)
	}
}

// tell runs f, never two at once.
func (s *survey) tell(f func()) {
	s.news.Lock()
	defer s.news.Unlock()
	f()
}

// begin reports a step with n units.
func (s *survey) begin(name, text string, n int) *part {
	if s.o.Events.Step != nil {
		s.o.Events.Step(pipeline.StepEvent{Name: name, Text: text})
	}
	return &part{s: s, total: n}
}

// build returns the result for one patch: that of an earlier run, or a new one.
// An error means that there is no result, because ctx ended or the folder cannot
// be written.
func (s *survey) build(ctx context.Context, i int) (*record, error) {
	e, name := s.o.Entries[i], s.names[i]
	patch, err := os.ReadFile(e.Path)
	if err != nil {
		return nil, err
	}
	files, titles := parsePatch(e.Name, patch)
	key, err := s.buildKey(patch, name, files)
	if err != nil {
		return nil, err
	}
	if r := s.dir.load(name); r != nil && r.Key == key {
		r.Result.describe(e, titles)
		return r, nil
	}
	if err := s.dir.forget(name); err != nil {
		return nil, err
	}
	r := &record{Key: key, Result: Result{Patch: e.Name, SHA256: digest(patch), Files: files}}
	r.Result.describe(e, titles)
	log := s.try(ctx, i, &r.Result)
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, s.dir.forget(name))
	}
	if err := s.writeLog(name, &r.Result, log); err != nil {
		return nil, err
	}
	return r, s.dir.save(name, r)
}

// describe says what the index, or else the patch itself, says of a patch.
func (r *Result) describe(e Entry, titles []string) {
	r.Patch, r.CVEs, r.Titles = e.Name, e.CVEs, e.Titles
	if len(e.Titles) == 0 {
		r.Titles = titles
	}
}

// writeLog keeps what is too long for the atlas.
func (s *survey) writeLog(name string, r *Result, log string) error {
	if log == "" {
		return nil
	}
	r.Log = logPath(name)
	return renameio.WriteFile(s.dir.file(r.Log), []byte(log), 0o644)
}

// try builds one patch and judges how that ended. It returns all that there is
// to say about a failure.
func (s *survey) try(ctx context.Context, i int, r *Result) (log string) {
	name := s.names[i]
	r.Functions, r.Reasons, r.Problems, r.Notes = []Function{}, []elfdiff.ProblemKind{}, []elfdiff.JSONProblem{}, []string{}
	var used run.Meter
	start := time.Now()
	defer func() {
		if v := recover(); v != nil {
			log = r.failed(&pipeline.PanicError{Value: v, Stack: debug.Stack()})
		}
		r.Seconds, r.CPUSeconds = rounded(time.Since(start).Seconds()), rounded(used.CPU().Seconds())
	}()
	o := s.o.Build
	o.Patches, o.Name, o.Output, o.Jobs = []string{s.o.Entries[i].Path}, name, s.dir.file(modulePath(name)), s.o.Jobs
	o.Events = pipeline.Events{Note: func(text string) { r.Notes = append(r.Notes, text) }}
	report, err := pipeline.Build(run.WithMeter(ctx, &used), s.o.Kernel, o)
	if report != nil {
		r.take(report)
	}
	defer func() { r.rename(s.o.Entries[i]) }()
	if err != nil {
		return r.failed(err)
	}
	ko, err := os.ReadFile(o.Output)
	if err != nil {
		return r.failed(err)
	}
	r.Verdict, r.Module, r.Size, r.ModuleSHA256 = Built, modulePath(name), len(ko), digest(ko)
	return ""
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
