package elfdiff

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/klpc/klpc/elfobj"
)

// Verdict is the outcome of a comparison.
type Verdict string

// The verdicts, from best to worst.
const (
	Unchanged   Verdict = "unchanged"
	Changed     Verdict = "changed"
	Unpatchable Verdict = "unpatchable"
)

// ChangeKind is what happened to a function or variable.
type ChangeKind string

// The kinds of changes.
const (
	IsChanged ChangeKind = "changed"
	IsNew     ChangeKind = "new"
	IsRemoved ChangeKind = "removed"
)

// ProblemKind is a stable code for why something cannot be livepatched.
type ProblemKind string

// The problems that a comparison finds.
const (
	InitCode         ProblemKind = "init-code"
	DataChanged      ProblemKind = "data-changed"
	DataResized      ProblemKind = "data-resized"
	NoFtraceEntry    ProblemKind = "no-ftrace-entry"
	AmbiguousStatic  ProblemKind = "ambiguous-static"
	UnknownConstruct ProblemKind = "unknown-construct"
)

// Problem says why the patch cannot be livepatched, and what its author can do.
type Problem struct {
	Kind   ProblemKind
	At     elfobj.Pos
	Detail string
	Hint   string
	Source *Line // nil if it is not known
}

// Line is a line of the patched source.
type Line struct {
	File string `json:"file"` // relative to the kernel tree
	Line int    `json:"line"` // 1-based
	Text string `json:"text"` // without indentation
}

// String returns the line as compilers show it.
func (l *Line) String() string { return fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Text) }

// Change is one function or variable that is not the same in both objects.
type Change struct {
	Orig    *Piece // nil if new
	Patched *Piece // nil if removed
	Kind    ChangeKind
	Reasons []string // in code order, without repetition
}

// Name is the symbol's name in the running kernel, or the new one.
func (c Change) Name() string {
	if c.Orig != nil {
		return c.Orig.Name()
	}
	return c.Patched.Name()
}

// Result is the outcome of Compare. All slices are sorted by name or place.
type Result struct {
	Orig, Patched *View
	Verdict       Verdict
	Functions     []Change
	Data          []Change
	Problems      []Problem
	// Notes say what was left out on purpose, such as changed init code
	// beside changes that do reach the running kernel.
	Notes []string
	// AddedExports and RemovedExports are symbol names.
	AddedExports, RemovedExports []string
}

// JSON forms of a result; the field order is the documented one.
type (
	// JSONChange is a function or variable.
	JSONChange struct {
		Name    string     `json:"name"`
		Change  ChangeKind `json:"change"`
		Reasons []string   `json:"reasons,omitempty"`
	}
	// JSONProblem is a problem.
	JSONProblem struct {
		Kind   ProblemKind `json:"kind"`
		Where  string      `json:"where"`
		Detail string      `json:"detail"`
		Hint   string      `json:"hint"`
		Source *Line       `json:"source,omitempty"`
	}
	// JSONResult is what `klpc diff --json` prints.
	JSONResult struct {
		Verdict   Verdict       `json:"verdict"`
		Functions []JSONChange  `json:"functions"`
		Data      []JSONChange  `json:"data"`
		Problems  []JSONProblem `json:"problems"`
		Notes     []string      `json:"notes,omitempty"`
	}
)

// JSON converts a result to its documented form.
func (r *Result) JSON() JSONResult {
	return JSONResult{
		Verdict:   r.Verdict,
		Functions: JSONChanges(r.Functions),
		Data:      JSONChanges(r.Data),
		Problems:  JSONProblems(r.Problems),
		Notes:     r.Notes,
	}
}

// JSONChanges converts changes; the result is never nil.
func JSONChanges(cs []Change) []JSONChange {
	out := make([]JSONChange, 0, len(cs))
	for _, c := range cs {
		out = append(out, JSONChange{Name: c.Name(), Change: c.Kind, Reasons: c.Reasons})
	}
	return out
}

// JSONProblems converts problems; the result is never nil.
func JSONProblems(ps []Problem) []JSONProblem {
	out := make([]JSONProblem, 0, len(ps))
	for _, p := range ps {
		out = append(out, JSONProblem{Kind: p.Kind, Where: p.At.String(), Detail: p.Detail, Hint: p.Hint, Source: p.Source})
	}
	return out
}

// SortProblems orders problems by object, place and kind.
func SortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.At.Object, b.At.Object), cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.At.Symbol, b.At.Symbol), cmp.Compare(a.At.Section, b.At.Section),
			cmp.Compare(a.At.Off, b.At.Off), cmp.Compare(a.Detail, b.Detail))
	})
}
