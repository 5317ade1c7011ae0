package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testRelease = "6.12.1-test"

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// testStore is a store on a disk in memory, at a time that stands still.
func testStore(d disk) *Store {
	return &Store{root: "/store", disk: d, now: func() time.Time { return testTime }}
}

// testModule is a module that replaces one function.
func testModule(name, text string) *Module {
	data := []byte("module " + name + ": " + text)
	no := false
	return &Module{
		Name: name, Release: testRelease, SHA256: Sum(data), Replace: &no, data: data,
		Objects: []Object{{Name: "vmlinux", Functions: []Function{{Name: "do_" + name}}}},
	}
}

// kernel is a kernel to load livepatches into.
type kernel struct {
	boot   string
	active []string
	// load, if set, decides what a load leads to.
	load func(name string) error
}

func (k *kernel) Active() ([]string, error) { return k.active, nil }

func (k *kernel) Load(_ context.Context, file string) error {
	name, _, _ := strings.Cut(path.Base(file), "-")
	if k.load != nil {
		if err := k.load(name); err != nil {
			return err
		}
	}
	k.active = append(k.active, name)
	return nil
}

func (k *kernel) machine() Machine {
	return Machine{Release: testRelease, BootID: k.boot, Active: k.active, UncleanBoots: DefaultUncleanBoots}
}

// do carries a planned change out.
func do(c *Change, err error) error {
	if err != nil {
		return err
	}
	return c.Do()
}

func install(name, text string, accept bool) func(*Store, *kernel) error {
	return func(s *Store, _ *kernel) error {
		return do(s.Install(testModule(name, text), InstallOptions{Accept: accept}))
	}
}

func accept(name string) func(*Store, *kernel) error {
	return func(s *Store, _ *kernel) error { return do(s.Accept(testRelease, name)) }
}

func uninstall(name string) func(*Store, *kernel) error {
	return func(s *Store, _ *kernel) error { return do(s.Uninstall(testRelease, name)) }
}

func restore(s *Store, k *kernel) error {
	r, err := s.Restore(context.Background(), k.machine(), k, nil)
	if err != nil || !r.Failed() {
		return err
	}
	if text := fmt.Sprintf("%+v", r.Patches); !strings.Contains(text, errPower.Error()) {
		return errors.New(text)
	}
	return errPower
}

func markClean(s *Store, k *kernel) error { return s.MarkClean(k.machine()) }

// loadByHand is what klpc load does with the store.
func loadByHand(name, text string) func(*Store, *kernel) error {
	return func(s *Store, k *kernel) error {
		l := Load{Name: name, SHA256: testModule(name, text).SHA256}
		if err := s.Loading(k.machine(), l); err != nil {
			return err
		}
		if err := k.Load(context.Background(), name+"-x"); err != nil {
			return err
		}
		return s.Loaded(k.machine(), l)
	}
}

// reboot is a new boot of the same kernel.
func reboot(_ *Store, k *kernel) error {
	k.boot += "+"
	k.active = nil
	return nil
}

// TestPowerCut cuts the power before every operation on the disk, for each way in
// which a disk may come back. What is found must be a state that the command goes
// through and not an older one than what it had made safe; every module must be
// whole; a restore must work; and the command, given again, must end as if
// nothing had happened.
func TestPowerCut(t *testing.T) {
	one := []func(*Store, *kernel) error{install("one", "v1", true)}
	both := append(slices.Clip(one), install("two", "v1", true))
	tests := []struct {
		name   string
		before []func(*Store, *kernel) error
		op     func(*Store, *kernel) error
		// repeats: done again after a cut it leads to the same state. Loads do
		// not: one that was cut off is held back.
		repeats bool
	}{
		{"first install", nil, install("one", "v1", true), true},
		{"second install", one, install("two", "v1", false), true},
		{"the same again", one, install("one", "v1", false), true},
		{"another of that name", both, install("one", "v2", true), true},
		{"accept", append(slices.Clip(one), install("two", "v1", false)), accept("two"), true},
		{"uninstall", both, uninstall("one"), true},
		{"uninstall the last", one, uninstall("one"), true},
		{"load by hand", both, loadByHand("one", "v1"), false},
		{"restore", append(slices.Clip(both), install("three", "v1", false)), restore, false},
		{"restore after an unclean restart", append(slices.Clip(both), install("three", "v1", false), loadByHand("three", "v1"), reboot), restore, false},
		{"clean shutdown", append(slices.Clip(both), restore), markClean, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base, k := newCutDisk(), &kernel{boot: "first"}
			for _, f := range tt.before {
				if err := f(testStore(base), k); err != nil {
					t.Fatal(err)
				}
			}
			cuts := powerCuts(t, base, *k, tt.op, tt.repeats)
			if cuts < 2 && tt.name != "the same again" {
				t.Errorf("only %d operations: is the disk used at all?", cuts)
			}
			t.Logf("%d operations", cuts)
		})
	}
}

// powerCuts runs one command with a cut before each of its operations.
func powerCuts(t *testing.T, base *cutDisk, k kernel, op func(*Store, *kernel) error, repeats bool) int {
	whole := base.world(-1, contents[1])
	states := []string{manifestText(t, whole)}
	final := *copyOf(&k)
	if err := op(&Store{root: "/store", disk: &watched{cutDisk: whole, seen: func() {
		if m := manifestText(t, whole); m != states[len(states)-1] {
			states = append(states, m)
		}
	}}, now: testStore(whole).now}, &final); err != nil {
		t.Fatal(err)
	}
	end := states[len(states)-1]
	if m := manifestText(t, whole.world(0, contents[0])); m != end {
		t.Fatalf("the command returned, and a power cut now would lose what it did: %s", cmp.Diff(end, m))
	}
	for n := range whole.ops {
		d, k := base.world(-1, contents[1]), copyOf(&k)
		d.cutAt = n
		if err := op(testStore(d), k); !errors.Is(err, errPower) {
			t.Fatalf("cut before operation %d: %v", n, err)
		}
		safe := slices.Index(states, manifestText(t, d.world(0, contents[0])))
		for _, w := range d.worlds() {
			i := slices.Index(states, manifestText(t, w))
			if i < 0 || i < safe {
				t.Fatalf("cut after %q: state %d, safe was %d:\n%s", d.log, i, safe, manifestText(t, w))
			}
			checkWorld(t, w, d.log)
			again := w.world(-1, contents[1])
			if err := op(testStore(again), copyOf(k)); err != nil {
				t.Fatalf("cut after %q, the command again: %v", d.log, err)
			}
			if m := manifestText(t, again); repeats && m != end {
				t.Fatalf("cut after %q, the command again: %s", d.log, cmp.Diff(end, m))
			}
		}
	}
	return whole.ops
}

func copyOf(k *kernel) *kernel {
	c := *k
	c.active = slices.Clone(k.active)
	return &c
}

// watched calls seen after every operation.
type watched struct {
	*cutDisk
	seen func()
}

func (w *watched) Rename(from, to string) error {
	err := w.cutDisk.Rename(from, to)
	w.seen()
	return err
}

func manifestText(t *testing.T, d *cutDisk) string {
	t.Helper()
	m, err := testStore(d).Read(testRelease)
	if err != nil {
		t.Fatalf("the store cannot be read: %v", err)
	}
	text, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkWorld boots a machine that finds this disk.
func checkWorld(t *testing.T, w *cutDisk, log []string) {
	t.Helper()
	s := testStore(w.world(-1, contents[1]))
	m, err := s.Read(testRelease)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Patches {
		if _, err := s.Module(testRelease, &p); err != nil {
			t.Fatalf("cut after %q: %v", log, err)
		}
	}
	var want []string
	k := &kernel{boot: "next"}
	k.load = func(name string) error {
		now, err := s.Read(testRelease)
		if err != nil || now.Boot.ID != "next" || now.Boot.Loading == nil || now.Boot.Loading.Name != name {
			t.Errorf("%s is loaded, and the store does not say so: %+v %v", name, now.Boot, err)
		}
		return nil
	}
	if err := restore(s, k); err != nil {
		t.Fatalf("cut after %q: restore: %v", log, err)
	}
	m, err = s.Read(testRelease)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Patches {
		if p.Restorable() {
			want = append(want, p.Name)
		}
	}
	if !reflect.DeepEqual(want, k.active) {
		t.Errorf("cut after %q: restored %q, want %q", log, k.active, want)
	}
}

// TestPowerCutFinds is a test of the test: a store that does not sync, or writes
// in place, is found out.
func TestPowerCutFinds(t *testing.T) {
	d := newCutDisk()
	if err := d.Mkdir(testRelease); err != nil {
		t.Fatal(err)
	}
	name := path.Join(testRelease, manifestName)
	write := func(text string, sync bool) {
		f, err := d.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := errors.Join(f.Sync(), d.SyncDir(testRelease)); err != nil {
				t.Fatal(err)
			}
		}
	}
	found := func() []string {
		var all []string
		for _, w := range d.worlds() {
			data, err := w.ReadFile(name)
			if err != nil {
				data = []byte("none")
			}
			all = append(all, string(data))
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	write("abcdefghij", true)
	if d := cmp.Diff([]string{"abcdefghij"}, found()); d != "" {
		t.Error(d)
	}
	write("0123456789", false)
	want := []string{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "01234", "0123456789", "abcdefghij"}
	if d := cmp.Diff(want, found()); d != "" {
		t.Error(d)
	}
}
