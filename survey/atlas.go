// Package survey tries many patches on one kernel, each by itself, and records
// in an atlas what became of each: atlas.json for programs, atlas.html for
// people. A survey can be interrupted at any time and goes on where it ended.
//
// It decides nothing about a patch: pipeline builds, livetest tests. The keys of
// atlas.json are documented in docs/survey.md.
package survey

import (
	"cmp"
	"slices"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/verify"
)

// Verdict is what became of one patch.
type Verdict string

// The verdicts. Their words are stable.
const (
	Tested         Verdict = "tested"           // built, and passed on the booted kernel
	Built          Verdict = "built"            // a module was built
	TestFailed     Verdict = "test-failed"      // built, but the booted kernel did not take it well
	Unpatchable    Verdict = "unpatchable"      // refused, see the problems
	NoEffect       Verdict = "no-effect"        // it changes no function of this kernel
	DoesNotApply   Verdict = "does-not-apply"   // not to the sources of this kernel, or it is no patch
	DoesNotCompile Verdict = "does-not-compile" // the patched sources do not
	InternalError  Verdict = "internal-error"   // klpc or the machine failed; says nothing of the patch
)

// Verdicts lists all, the best first.
func Verdicts() []Verdict {
	return []Verdict{Tested, Built, TestFailed, Unpatchable, NoEffect, DoesNotApply, DoesNotCompile, InternalError}
}

// Schema is the version of atlas.json. It changes when a key goes or changes its
// meaning; keys may be added without that.
const Schema = 1

// Atlas is the result of a survey; its JSON form is stable. Everything but the
// keys named seconds and cpu_seconds is the same for the same input.
type Atlas struct {
	Schema   int      `json:"schema"`
	Klpc     string   `json:"klpc"` // version
	Kernel   string   `json:"kernel"`
	Tests    bool     `json:"tests"`    // whether modules were to be tested
	Complete bool     `json:"complete"` // false: interrupted
	Summary  Summary  `json:"summary"`
	Patches  []Result `json:"patches"` // in the order of the input
	Pending  []string `json:"pending"` // patches that the survey did not come to, or could not finish
}

// Summary counts.
type Summary struct {
	Patches  int             `json:"patches"`  // with a verdict
	Verdicts map[Verdict]int `json:"verdicts"` // all verdicts are there
	// Candidates are the patches that apply, compile, and change code of this
	// kernel; Converted are those of them that are now good modules.
	Candidates int           `json:"candidates"`
	Converted  int           `json:"converted"`
	Reasons    []ReasonCount `json:"reasons"` // the most frequent first
	Seconds    float64       `json:"seconds"` // sum over the patches, tests included
	CPUSeconds float64       `json:"cpu_seconds"`
}

// ReasonCount says how many patches were refused for a reason.
type ReasonCount struct {
	Reason  elfdiff.ProblemKind `json:"reason"`
	Patches int                 `json:"patches"`
}

// Result is what became of one patch.
type Result struct {
	Patch   string   `json:"patch"`  // name, unique in the atlas
	SHA256  string   `json:"sha256"` // of the patch file
	Verdict Verdict  `json:"verdict"`
	CVEs    []string `json:"cves,omitempty"` // from the index beside the patches
	Titles  []string `json:"titles,omitempty"`
	Files   []string `json:"files"` // that the patch touches

	Functions []Function              `json:"functions"`
	Reasons   []elfdiff.ProblemKind   `json:"reasons"` // kinds of the problems, each once
	Problems  []elfdiff.JSONProblem   `json:"problems"`
	Notes     []string                `json:"notes"`
	Layout    []pipeline.ReportLayout `json:"layout,omitempty"`    // types that the patch changes
	NoEffect  []string                `json:"no_effect,omitempty"` // files that never reach this kernel
	// Error is what is wrong with the patch's text, the compiler's first
	// error, or what failed.
	Error string `json:"error,omitempty"`

	Module       string `json:"module,omitempty"` // path in the atlas folder
	Size         int    `json:"size,omitempty"`   // of the module, in bytes
	ModuleSHA256 string `json:"module_sha256,omitempty"`
	// Verification is what klpc verify says of the module: verified, or
	// incomplete where the kernel's code is not known.
	Verification verify.Verdict `json:"verification,omitempty"`
	Test         *Test          `json:"test,omitempty"`
	Log          string         `json:"log,omitempty"` // path in the atlas folder: all that the failed program said

	Seconds    float64 `json:"seconds"`     // to build, wall clock
	CPUSeconds float64 `json:"cpu_seconds"` // of the programs that were run to build it
}

// Function is one function that a module redirects or brings along.
type Function struct {
	Object  string             `json:"object"` // vmlinux or the module's name
	Name    string             `json:"name"`
	Sympos  int                `json:"sympos"` // 0: the name is unique, or new
	Change  elfdiff.ChangeKind `json:"change"`
	Why     string             `json:"why"`
	Source  string             `json:"source"`
	Reasons []string           `json:"reasons,omitempty"`
}

// Test is the trial of a module on the booted kernel.
type Test struct {
	Accel string `json:"accel"` // what the guest ran on: tcg or kvm
	// NotLoaded are modules to be patched that do not load in the guest, such
	// as drivers of devices it has not; their functions were not redirected.
	NotLoaded []string `json:"not_loaded,omitempty"`
	Problems  []string `json:"problems"`
	Log       []string `json:"log,omitempty"` // lines of the kernel log that tell of a fault
	Seconds   float64  `json:"seconds"`       // guest time, boot not included
}

// newAtlas puts results together; pending are the names of the patches without.
func newAtlas(klpc, kernel string, tests bool, results []Result, pending []string) *Atlas {
	a := &Atlas{Schema: Schema, Klpc: klpc, Kernel: kernel, Tests: tests, Complete: len(pending) == 0,
		Patches: append([]Result{}, results...), Pending: append([]string{}, pending...)}
	s := &a.Summary
	s.Patches, s.Verdicts = len(results), map[Verdict]int{}
	for _, v := range Verdicts() {
		s.Verdicts[v] = 0
	}
	reasons := map[elfdiff.ProblemKind]int{}
	for _, r := range results {
		s.Verdicts[r.Verdict]++
		for _, code := range r.Reasons {
			reasons[code]++
		}
		s.Seconds += r.Seconds
		s.CPUSeconds += r.CPUSeconds
		if r.Test != nil {
			s.Seconds += r.Test.Seconds
		}
	}
	s.Seconds, s.CPUSeconds = rounded(s.Seconds), rounded(s.CPUSeconds)
	s.Converted = s.Verdicts[Built] + s.Verdicts[Tested]
	s.Candidates = s.Converted + s.Verdicts[TestFailed] + s.Verdicts[Unpatchable] + s.Verdicts[InternalError]
	s.Reasons = []ReasonCount{}
	for code, n := range reasons {
		s.Reasons = append(s.Reasons, ReasonCount{code, n})
	}
	slices.SortFunc(s.Reasons, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Patches, a.Patches), cmp.Compare(a.Reason, b.Reason))
	})
	return a
}

// rounded cuts seconds to hundredths.
func rounded(seconds float64) float64 { return float64(int64(seconds*100+0.5)) / 100 }
