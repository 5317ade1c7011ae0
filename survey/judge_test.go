package survey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/verify"
)

func TestJudge(t *testing.T) {
	compile := &kbuild.CompileError{Unit: kbuild.Unit{Source: "fs/x.c"}, First: "fs/x.c:3:1: error: no", Output: "all of it"}
	missing := &kbuild.MissingHeaderError{Unit: kbuild.Unit{Source: "fs/x.c"}, Header: "new.h", First: "fs/x.c:1:10: fatal error: new.h: No such file or directory", Output: "all of it"}
	wrongModule := &pipeline.VerifyError{Report: &verify.Report{Findings: []verify.Finding{{Proof: verify.Patched, Where: "g", Detail: "d", Hint: "h"}}}}
	for _, tt := range []struct {
		name string
		err  error
		want Result
		log  string
	}{
		{"nothing changes", pipeline.ErrNothing, Result{Verdict: NoEffect}, ""},
		{"refused", pipeline.ErrUnpatchable, Result{Verdict: Unpatchable}, ""},
		{"does not apply", &pipeline.PatchError{Err: errors.New("hunk 1")}, Result{Verdict: DoesNotApply, Error: "hunk 1"}, ""},
		{"does not compile", fmt.Errorf("unit: %w", compile), Result{Verdict: DoesNotCompile, Error: compile.First}, "all of it"},
		{"a header of another patch", errors.Join(missing, errors.New("make: no rule")), Result{Verdict: DoesNotCompile, Error: missing.First}, "all of it"},
		{"the original does not compile", &pipeline.OriginalError{Err: compile},
			Result{Verdict: InternalError, Error: "the original does not compile: compile fs/x.c: fs/x.c:3:1: error: no"},
			"the original does not compile: compile fs/x.c: fs/x.c:3:1: error: no"},
		{"another kernel", &pipeline.MismatchError{Lines: []string{"fs/x.c: f: byte 3 is another one"}},
			Result{Verdict: Unpatchable, Reasons: []elfdiff.ProblemKind{KernelMismatch},
				Problems: []elfdiff.JSONProblem{{Kind: KernelMismatch, Where: "fs/x.c", Detail: "f: byte 3 is another one",
					Hint: "give klpc the sources, the configuration and the compiler that this kernel was built from"}}}, ""},
		{"verification finds another kernel", &pipeline.VerifyError{Report: &verify.Report{Findings: []verify.Finding{
			{Proof: verify.Original, Where: "f", Detail: "byte 3", Hint: "look"}, {Proof: verify.Patched, Where: "g", Detail: "d", Hint: "h"}}}},
			Result{Verdict: Unpatchable, Reasons: []elfdiff.ProblemKind{KernelMismatch},
				Problems: []elfdiff.JSONProblem{{Kind: KernelMismatch, Where: "f", Detail: "byte 3", Hint: "look"}}}, ""},
		{"verification finds a wrong module", wrongModule, Result{Verdict: InternalError, Error: wrongModule.Error()}, wrongModule.Error()},
		{"a panic", &pipeline.PanicError{Value: "index out of range", Stack: []byte("goroutine 1")},
			Result{Verdict: InternalError, Error: "panic: index out of range"},
			"internal error: index out of range; please report it with this:\ngoroutine 1"},
		{"anything else", errors.New("no space left on device"), Result{Verdict: InternalError, Error: "no space left on device"}, "no space left on device"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Result
			log := got.failed(tt.err)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if log != tt.log {
				t.Errorf("log %q, want %q", log, tt.log)
			}
		})
	}
}

// Reasons are the kinds of the problems, sorted, each once.
func TestReasons(t *testing.T) {
	r := Result{Problems: []elfdiff.JSONProblem{{Kind: "init-code"}, {Kind: "data-changed"}, {Kind: "init-code"}}}
	r.failed(pipeline.ErrUnpatchable)
	if d := cmp.Diff([]elfdiff.ProblemKind{"data-changed", "init-code"}, r.Reasons); d != "" {
		t.Error(d)
	}
}

// A fault of klpc in one patch is that patch's result, with its stack.
func TestPanic(t *testing.T) {
	s := &survey{o: Options{Entries: []Entry{{Name: "a.patch", Path: "/somewhere/a.patch"}}}, // without a kernel
		names: []string{"livepatch-a"}, dir: &folder{path: t.TempDir()}}
	var r Result
	log := s.try(context.Background(), 0, &r)
	if r.Verdict != InternalError || !strings.HasPrefix(r.Error, "panic: ") {
		t.Errorf("got %s: %s", r.Verdict, r.Error)
	}
	if !strings.Contains(log, "goroutine") || !strings.Contains(log, "pipeline.Build") {
		t.Errorf("the log has no stack:\n%s", log)
	}
}
