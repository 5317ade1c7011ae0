package codegen_test

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// shared is a source that is linked into two modules; sharedPatch adds a
// function, a variable and a caller to it.
const shared = "int probe(int x) { return work(x) + 1; }\n"

var sharedPatch = []string{"int probe", "int added; noinline int step(int x) { return work(x) + added++; }\nint probe", "+ 1", "+ step(x)"}

// sharedUnit is one codegen.Unit of a source that several modules link.
func sharedUnit(t *testing.T, object string) codegen.Unit {
	t.Helper()
	u := units(t, []source{{object: object, orig: shared, edits: sharedPatch}})[0]
	u.Source = "shared.c"
	return u
}

// TestSourceOfTwoModules: each module gets its own copy of what the patch adds,
// and the copies do not collide when the livepatch is linked.
func TestSourceOfTwoModules(t *testing.T) {
	k := kernel(t, nil, module(t, "one", "", shared), module(t, "two", "", shared))
	one := sharedUnit(t, "one")
	two := one // the same comparison
	two.Object = "two"
	p, err := codegen.Decide([]codegen.Unit{one, two}, k)
	if err != nil {
		t.Fatal(err)
	}
	want := "object one\n  func 0 probe,0 of shared.c\n  new step of shared.c\nobject two\n  func 1 probe,0 of shared.c\n  new step of shared.c\n" +
		"unit0 needs global work\nunit1 needs global work\n"
	if diff := cmp.Diff(want, describe(p)); diff != "" {
		t.Error(diff)
	}
	o := parse(t, finalize(t, p))
	var got []string
	for _, s := range o.Symbols {
		if s.Bind == elf.STB_GLOBAL && (strings.HasPrefix(s.Name, "step") || strings.HasPrefix(s.Name, "added")) {
			got = append(got, s.Name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"added.one", "added.two", "step.one", "step.two"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestCallerOfTheModulesOwnCopy: another unit of a module means its module's
// copy; a unit of a third module cannot mean any.
func TestCallerOfTheModulesOwnCopy(t *testing.T) {
	caller := "int step(int); int work(int); int late(int x) { return work(x) + 2; }\n"
	calls := []string{"+ 2", "+ step(x)"}
	mods := kernel(t, nil, module(t, "one", "", shared, caller), module(t, "two", "", shared), module(t, "third", "", caller))
	for object, want := range map[string]string{
		"one":   "unit2 needs global step.one\n",
		"third": "problem unresolved-symbol in caller.c: late refers to step: the patch adds it to the modules [one two], and nothing tells which of them is meant\n",
	} {
		u := units(t, []source{{object: object, orig: caller, edits: calls}})[0]
		u.Source = "caller.c"
		p, err := codegen.Decide([]codegen.Unit{sharedUnit(t, "one"), sharedUnit(t, "two"), u}, mods)
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(p); !strings.Contains(got, want) {
			t.Errorf("%s: %s\nwant %s", object, got, want)
		}
	}
}

// TestNewUnit: a unit that the running kernel does not have is compared with an
// empty object. What it adds, it refers to like any other code.
func TestNewUnit(t *testing.T) {
	fresh := parse(t, compile(t, `
extern int hidden(int), exported(int), twin(int);
static int calls;
static noinline int count(int x) { return hidden(x) + calls++; }
int added(int x) { return count(x) + exported(x) + twin(x); }
int lonely_too(int x) { return added(x); }
static int __init at_boot(void) { return work(1); }
int (*boot)(void) __used __section(".initcall6.init") = at_boot;
`))
	r, err := elfdiff.Compare(&elfobj.Object{Type: elf.ET_REL, Machine: fresh.Machine}, fresh)
	if err != nil {
		t.Fatal(err)
	}
	caller := units(t, []source{{orig: "int added(int); int f(int x) { return work(x) + 1; }", edits: []string{"+ 1", "+ added(x)"}}})[0]
	caller.Source = "caller.c"
	p, err := codegen.Decide([]codegen.Unit{caller, {Source: "fresh.c", Object: codegen.VMLinux, Diff: r}}, kernel(t, []string{"t twin", "T twin", "t count"}))
	if err != nil {
		t.Fatal(err)
	}
	want := "object vmlinux\n  func 0 f,0 of caller.c\n  new added of fresh.c\n  new count of fresh.c\n  new lonely_too of fresh.c\n" +
		"unit0 needs global added\nunit0 needs global work\n" +
		"unit1 needs global exported\nunit1 needs weak .klp.vmlinux.klp.sym.vmlinux.twin,2\nunit1 needs weak hidden\n"
	if diff := cmp.Diff(want, describe(p)); diff != "" {
		t.Error(diff)
	}
	checkContract(t, parse(t, finalize(t, p)))
}

// TestNewUnitWarns: what a new unit adds keeps the entries of special sections
// that describe it, one for each place: without its entry, a warning is a crash.
func TestNewUnitWarns(t *testing.T) {
	fresh := parse(t, compile(t, `
int first(int x) { if (x) WARN(); return work(x); }
int second(int x) { if (x > 1) WARN(); if (work(x)) WARN(); return x; }
`))
	r, err := elfdiff.Compare(&elfobj.Object{Type: elf.ET_REL, Machine: fresh.Machine}, fresh)
	if err != nil {
		t.Fatal(err)
	}
	caller := units(t, []source{{orig: "int first(int); int f(int x) { return work(x) + 1; }", edits: []string{"+ 1", "+ first(x)"}}})[0]
	caller.Source = "caller.c"
	p, err := codegen.Decide([]codegen.Unit{caller, {Source: "fresh.c", Object: codegen.VMLinux, Diff: r}}, kernel(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"first": 1, "second": 2}
	if diff := cmp.Diff(want, warnings(t, parse(t, finalize(t, p)))); diff != "" {
		t.Error(diff)
	}
}

// warnings counts the UD2s of each function that __bug_table describes, each once.
func warnings(t *testing.T, o *elfobj.Object) map[string]int {
	t.Helper()
	table := o.Section("__bug_table")
	if table == nil {
		t.Fatal("there is no __bug_table")
	}
	got, seen := map[string]int{}, map[string]bool{}
	for _, r := range o.Relocs(table) {
		if r.Off%12 != 0 || r.Sym == nil || r.Sym.Section == nil {
			continue
		}
		code, at := r.Sym.Section, r.Sym.Value+uint64(r.Addend)
		name, isFunc := strings.CutPrefix(code.Name, ".text.")
		place := fmt.Sprintf("%s+%#x", code.Name, at)
		if !isFunc || seen[place] || at+2 > code.Size || code.Data[at] != 0x0f || code.Data[at+1] != 0x0b {
			t.Errorf("the entry at %#x leads to %s, which is no UD2 of a function or was described before", r.Off, place)
			continue
		}
		seen[place] = true
		got[name]++
	}
	return got
}
