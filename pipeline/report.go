package pipeline

import (
	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/risk"
	"github.com/klpc/klpc/verify"
)

// Report is what a build has to say; its JSON form is stable.
type Report struct {
	Kernel   string                `json:"kernel"`
	Name     string                `json:"name"`
	Module   string                `json:"module,omitempty"` // path; empty if none was written
	Size     int                   `json:"size,omitempty"`   // bytes
	Objects  []ReportObject        `json:"objects"`
	Problems []elfdiff.JSONProblem `json:"problems"`
	Notes    []string              `json:"notes,omitempty"`
	Layout   []ReportLayout        `json:"layout,omitempty"`    // types that the patch changes
	Risks    []risk.Risk           `json:"risks"`               // to think about; also among Notes
	NoEffect []string              `json:"no_effect,omitempty"` // files of the patch that never reach this kernel
	// Readers is nil unless the patch changes files that others include.
	Readers *Readers `json:"readers,omitempty"`
	// Verification is what was proven of the module; nil if none was written.
	Verification *verify.Report `json:"verification,omitempty"`
	// Timings are not part of the JSON form: equal input gives equal output.
	Timings []Timing `json:"-"`
}

// ReportObject is one patched object.
type ReportObject struct {
	Name      string           `json:"name"` // vmlinux or the module's name
	Functions []ReportFunction `json:"functions"`
	Callbacks []ReportCallback `json:"callbacks,omitempty"`
}

// ReportFunction is one function that the module redirects or brings along.
type ReportFunction struct {
	Name    string             `json:"name"`
	Sympos  int                `json:"sympos"` // 0: the name is unique, or new
	Change  elfdiff.ChangeKind `json:"change"`
	Why     string             `json:"why"`
	Source  string             `json:"source"`
	Reasons []string           `json:"reasons,omitempty"`
}

// ReportCallback is one callback.
type ReportCallback struct {
	Kind     string `json:"kind"`
	Function string `json:"function"`
}

// fill takes over the plan. original reads a source that the patch does not touch.
func (r *Report) fill(plan *codegen.Plan, files []touched, original func(source string) []byte) {
	reasons := newReasons(files, original)
	r.Objects = []ReportObject{}
	for _, o := range plan.Objects {
		out := ReportObject{Name: o.Name, Functions: []ReportFunction{}}
		for _, f := range o.Funcs {
			out.Functions = append(out.Functions, ReportFunction{Name: f.Name, Sympos: f.Sympos, Change: elfdiff.IsChanged,
				Why: reasons.why(f.Source, f.Name), Source: f.Source, Reasons: f.Reasons})
		}
		for _, f := range o.New {
			out.Functions = append(out.Functions, ReportFunction{Name: f.Name, Change: elfdiff.IsNew, Why: New, Source: f.Source})
		}
		for _, c := range o.Callbacks {
			out.Callbacks = append(out.Callbacks, ReportCallback{Kind: c.Kind, Function: c.Name})
		}
		r.Objects = append(r.Objects, out)
	}
	r.Readers.count(r.Objects)
	quote(plan.Problems, files)
	r.Problems = elfdiff.JSONProblems(plan.Problems)
	r.Notes = append(r.Notes, plan.Notes...)
}
