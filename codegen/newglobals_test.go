package codegen_test

import (
	"debug/elf"
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
