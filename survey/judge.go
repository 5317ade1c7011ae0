package survey

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/verify"
)

// KernelMismatch is the reason where a function of the kernel's image is not
// what the tree builds: then nothing is known of the code that runs.
const KernelMismatch elfdiff.ProblemKind = "kernel-mismatch"

// take copies what a build has to say.
func (r *Result) take(report *pipeline.Report) {
	for _, o := range report.Objects {
		for _, f := range o.Functions {
			r.Functions = append(r.Functions, Function{Object: o.Name, Name: f.Name, Sympos: f.Sympos,
				Change: f.Change, Why: f.Why, Source: f.Source, Reasons: f.Reasons})
		}
	}
	r.Problems = append(r.Problems, report.Problems...)
	r.Notes = append(r.Notes, report.Notes...)
	r.NoEffect, r.Layout = report.NoEffect, report.Layout
	if report.Verification != nil {
		r.Verification = report.Verification.Verdict
	}
}

// failed turns the error of a build into a verdict. It returns all that there is
// to say, if that is more than the result holds.
func (r *Result) failed(err error) (log string) {
	var (
		patch    *pipeline.PatchError
		original *pipeline.OriginalError
		mismatch *pipeline.MismatchError
		fault    *pipeline.PanicError
		refused  *kbuild.CompileError
		missing  *kbuild.MissingHeaderError
		disproof *pipeline.VerifyError
	)
	switch {
	case errors.Is(err, pipeline.ErrNothing):
		r.Verdict = NoEffect
	case errors.Is(err, pipeline.ErrUnpatchable):
		r.Verdict = Unpatchable
	case errors.As(err, &patch):
		r.Verdict, r.Error = DoesNotApply, err.Error()
	case errors.As(err, &mismatch):
		r.Verdict = Unpatchable
		for _, l := range mismatch.Lines {
			where, detail, found := strings.Cut(l, ": ")
			if !found {
				where, detail = "kernel", l
			}
			r.Problems = append(r.Problems, elfdiff.JSONProblem{Kind: KernelMismatch, Where: where, Detail: detail,
				Hint: "give klpc the sources, the configuration and the compiler that this kernel was built from"})
		}
	case errors.As(err, &disproof) && r.differs(disproof.Report):
		r.Verdict = Unpatchable
	case errors.As(err, &original):
		r.Verdict, r.Error, log = InternalError, err.Error(), err.Error()
	case errors.As(err, &refused):
		r.Verdict, r.Error, log = DoesNotCompile, refused.First, refused.Output
	case errors.As(err, &missing):
		r.Verdict, r.Error, log = DoesNotCompile, missing.First, missing.Output
	case errors.As(err, &fault):
		r.Verdict, r.Error, log = InternalError, fmt.Sprintf("panic: %v", fault.Value), err.Error()
	default:
		r.Verdict, r.Error, log = InternalError, err.Error(), err.Error()
	}
	for _, p := range r.Problems {
		r.Reasons = append(r.Reasons, p.Kind)
	}
	slices.Sort(r.Reasons)
	r.Reasons = slices.Compact(r.Reasons)
	return log
}

// differs takes over what verification has found in functions of the running
// kernel. It is false if the fault is not there, but in the module.
func (r *Result) differs(report *verify.Report) bool {
	for _, f := range report.Findings {
		if f.Proof == verify.Original {
			r.Problems = append(r.Problems, elfdiff.JSONProblem{Kind: KernelMismatch, Where: f.Where, Detail: f.Detail, Hint: f.Hint})
		}
	}
	return len(r.Problems) > 0
}

// rename gives the patch the name that it has in the atlas, wherever it lies on
// this machine.
func (r *Result) rename(e Entry) {
	r.Error = strings.ReplaceAll(r.Error, e.Path, e.Name)
	for i, n := range r.Notes {
		r.Notes[i] = strings.ReplaceAll(n, e.Path, e.Name)
	}
}
