package pipeline

// The steps of a build, in their order.
//
// A step takes what the ones before it have left in the builder, and leaves
// something for those after it. What it leaves is saved in the work folder if
// that stays (work.go), so that a later run can go on from any step: the steps
// before that one restore what they had left instead of running. Steps that
// only compute in memory save nothing and run every time.

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/kbuild"
)

// step is one of the ordered steps.
type step struct {
	name string // as --from takes it
	does string // for people who choose one
	run  func(*builder, context.Context) error
	// save returns what the step has left, to be kept as JSON, and restore
	// takes it back; without them the step runs every time.
	save    func(*builder) any
	restore func(*builder, context.Context, []byte) error
}

// buildSteps is the table of contents of Build.
func buildSteps() []step {
	return []step{
		{name: "apply", does: "apply the patches, in memory", run: (*builder).apply,
			save: func(b *builder) any { return b.identity }, restore: (*builder).applySame},
		{name: "select", does: "find the units that may see a change", run: (*builder).selectUnits,
			save: (*builder).selectState, restore: (*builder).restoreSelect},
		{name: "preprocess", does: "drop the units that cannot see the change, or whose code cannot change with it", run: (*builder).preprocess,
			save: (*builder).preprocessState, restore: (*builder).restorePreprocess},
		{name: "compile", does: "compile each unit, as it is and as patched, and compare the objects", run: (*builder).compile,
			save: func(*builder) any { return struct{}{} }, restore: (*builder).reuseObjects},
		{name: "compare", does: "compare the versions of the symbols that changed units export", run: (*builder).compare,
			save: (*builder).compareState, restore: (*builder).restoreCompare},
		{name: "plan", does: "read the kernel's symbols and decide what goes into the module", run: (*builder).plan},
		{name: "link", does: "link the module with the kernel's own Kbuild, and finish it", run: (*builder).link,
			save: func(b *builder) any { return b.linked }, restore: (*builder).restoreLink},
		{name: "verify", does: "prove that the module is right", run: (*builder).verify},
	}
}

// BuildStep is a step of a build that a later build can go on from.
type BuildStep struct{ Name, Does string }

// BuildSteps are all steps of a build, in their order.
func BuildSteps() []BuildStep {
	var out []BuildStep
	for _, s := range buildSteps() {
		out = append(out, BuildStep{s.name, s.does})
	}
	return out
}

// stepIndex finds a step by its name; the empty name is the first step.
func stepIndex(name string) (int, error) {
	var names []string
	for i, s := range buildSteps() {
		if s.name == name || name == "" {
			return i, nil
		}
		names = append(names, s.name)
	}
	return 0, fmt.Errorf("there is no step %q; the steps are %s", name, strings.Join(names, ", "))
}

// runSteps runs the steps, those before from only if they cannot be restored.
func (b *builder) runSteps(ctx context.Context, from int) error {
	all := buildSteps()
	for i, s := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.at = StepEvent{Name: s.name, Index: i + 1, Total: len(all)}
		if i < from && s.restore != nil {
			if err := b.restore(ctx, s); err != nil {
				return err
			}
			continue
		}
		if err := s.run(b, ctx); err != nil {
			return err
		}
		if s.save != nil {
			if err := b.work.save(s.name, s.save(b)); err != nil {
				return err
			}
		}
	}
	return nil
}

// restore takes what a step has left in an earlier run.
func (b *builder) restore(ctx context.Context, s step) error {
	b.step(s.name + ": taken from the work folder")
	b.reuse = true
	defer func() { b.reuse = false }()
	saved, err := b.work.load(s.name)
	if err != nil {
		return err
	}
	return s.restore(b, ctx, saved)
}

// step says what the running step does.
func (b *builder) step(text string) {
	if b.reuse {
		return // it has been said
	}
	b.timing.begin(text)
	b.at.Text = text
	b.event(func(e Events) { e.step(b.at) })
}

func (b *builder) event(f func(Events)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.o.Events)
}

func (b *builder) note(text string) { b.event(func(e Events) { e.note(text) }) }

// saved is the JSON form of a selection, and of the files, whose pinned texts
// the choice of units settles.
type savedSelection struct {
	Units, Candidates []kbuild.Unit
	Included          []string
	Also              int
	NoEffect, Notes   []string
	Problems          []elfdiff.Problem
	Fresh             map[string]bool
	Patched           map[string]kbuild.Unit
	Defines           []string
	Files             []savedFile
	Report            *Report // so far
}

// saved returns the selection with the names of its JSON form.
func (s *selection) saved() savedSelection {
	return savedSelection{Units: s.units, Candidates: s.candidates, Included: s.included, Also: s.also, NoEffect: s.noEffect, Notes: s.notes,
		Problems: s.problems, Fresh: s.fresh, Patched: s.patched, Defines: s.defines}
}

func (v savedSelection) selection() *selection {
	return &selection{units: v.Units, candidates: v.Candidates, included: v.Included, also: v.Also, noEffect: v.NoEffect, notes: v.Notes,
		problems: v.Problems, fresh: v.Fresh, patched: v.Patched, defines: v.Defines}
}

func (b *builder) selectState() any {
	v := b.sel.saved()
	v.Report = b.report
	for _, f := range b.files {
		v.Files = append(v.Files, f.saved())
	}
	return v
}

func (b *builder) restoreSelect(_ context.Context, data []byte) error {
	v := savedSelection{Report: b.report}
	if err := b.restoreReport(data, &v); err != nil {
		return err
	}
	b.sel = v.selection()
	b.problems = b.sel.problems
	for i := range b.files {
		if !slices.ContainsFunc(v.Files, b.files[i].takes) {
			return fmt.Errorf("internal error: %s is not among the files of the work folder", b.files[i].path)
		}
	}
	return b.makeShadow()
}

// restoreReport reads a state that holds the report, whose name is not a
// matter of the steps.
func (b *builder) restoreReport(data []byte, state any) error {
	name := b.report.Name
	err := json.Unmarshal(data, state)
	b.report.Name = name
	return err
}

// savedUnits are the units that are compiled.
type savedUnits struct {
	Units  []kbuild.Unit
	Report *Report
}

func (b *builder) preprocessState() any { return savedUnits{b.units, b.report} }

func (b *builder) restorePreprocess(_ context.Context, data []byte) error {
	v := savedUnits{Report: b.report}
	if err := b.restoreReport(data, &v); err != nil {
		return err
	}
	b.units = v.Units
	return nil
}

// reuseObjects is the step compile, with nothing left to compile.
func (b *builder) reuseObjects(ctx context.Context, _ []byte) error { return b.compile(ctx) }

// compareState is what the comparison has asked the compiler for; the rest
// takes less time than reading it would.
func (b *builder) compareState() any {
	crcs := map[string][]elfdiff.Problem{}
	for i := range b.pairs {
		p := &b.pairs[i]
		if len(p.crcs) > 0 {
			crcs[p.unit.Object] = p.crcs
		}
	}
	return crcs
}

func (b *builder) restoreCompare(_ context.Context, data []byte) error {
	var crcs map[string][]elfdiff.Problem
	if err := json.Unmarshal(data, &crcs); err != nil {
		return err
	}
	for i := range b.pairs {
		b.pairs[i].crcs = crcs[b.pairs[i].unit.Object]
	}
	return nil
}

func (b *builder) restoreLink(_ context.Context, data []byte) error {
	return json.Unmarshal(data, &b.linked)
}
