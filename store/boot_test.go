package store

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// act is what happens to a machine.
type act = func(*Store, *kernel) error

// settled is what klpc-settled.timer does.
func settled(s *Store, k *kernel) error { return s.MarkSettled(k.machine()) }

// crashAt is a restore that brings the machine down as it loads a livepatch.
func crashAt(name string) act {
	return func(s *Store, k *kernel) error {
		k.load = func(n string) error {
			if n == name {
				panic(errPower)
			}
			return nil
		}
		defer func() { k.load = nil; _ = recover() }()
		return restore(s, k)
	}
}

// crashByHand is a load by hand that brings the machine down.
func crashByHand(name, text string) act {
	return func(s *Store, k *kernel) error {
		return s.Loading(k.machine(), Load{Name: name, SHA256: testModule(name, text).SHA256})
	}
}

// unload is what klpc unload does with the store.
func unload(name string) act {
	return func(s *Store, k *kernel) error {
		k.active = slices.DeleteFunc(k.active, func(n string) bool { return n == name })
		return s.Unloaded(k.machine())
	}
}

// repeat does acts several times.
func repeat(n int, acts ...act) act {
	return func(s *Store, k *kernel) error {
		for range n {
			for _, a := range acts {
				if err := a(s, k); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// cleanReboot is a shutdown in good order.
func cleanReboot(s *Store, k *kernel) error { return errors.Join(markClean(s, k), reboot(s, k)) }

// TestBoots: what a boot restores, and what is held back afterwards.
func TestBoots(t *testing.T) {
	both := []act{install("one", "v1", true), install("two", "v1", true)}
	spare := install("spare", "v1", false)
	tests := []struct {
		name     string
		acts     []act // the last boot begins after them
		restored []string
		held     []string // "name kind"
	}{
		{"nothing is installed", nil, nil, nil},
		{"accepted ones, as installed", append(slices.Clip(both), spare), []string{"one", "two"}, nil},
		{"accepted ones, as loaded by hand", append(slices.Clip(both), loadByHand("two", "v1"), loadByHand("one", "v1"), cleanReboot), []string{"two", "one"}, nil},
		{"a restore keeps the order", append(slices.Clip(both), restore, cleanReboot), []string{"one", "two"}, nil},
		{"a clean restart holds nothing back", append(slices.Clip(both), spare, loadByHand("spare", "v1"), cleanReboot), []string{"one", "two"}, nil},
		{"an unclean restart holds back what is not accepted", append(slices.Clip(both), spare, restore, loadByHand("spare", "v1"), reboot),
			[]string{"one", "two"}, []string{"spare unclean-restart"}},
		{"not if it was unloaded", append(slices.Clip(both), spare, loadByHand("spare", "v1"), unload("spare"), reboot), []string{"one", "two"}, nil},
		{"not if another module of that name was loaded", append(slices.Clip(both), spare, loadByHand("spare", "v2"), reboot), []string{"one", "two"}, nil},
		{"not if it was accepted in time", append(slices.Clip(both), spare, loadByHand("spare", "v1"), accept("spare"), reboot),
			[]string{"one", "two", "spare"}, nil},
		{"a later accept ends the hold", append(slices.Clip(both), spare, loadByHand("spare", "v1"), reboot, restore, accept("spare"), cleanReboot),
			[]string{"one", "two", "spare"}, nil},
		{"a clean mark does not outlive a load", append(slices.Clip(both), spare, markClean, loadByHand("spare", "v1"), reboot),
			[]string{"one", "two"}, []string{"spare unclean-restart"}},
		{"a clean mark does not outlive a soft reboot", append(slices.Clip(both), spare, loadByHand("spare", "v1"), markClean, restore, reboot),
			[]string{"one", "two"}, []string{"spare unclean-restart"}},
		{"a crash as the second is restored", append(slices.Clip(both), crashAt("two"), reboot), []string{"one"}, []string{"two loading"}},
		{"a crash as the first is restored", append(slices.Clip(both), crashAt("one"), reboot), []string{"two"}, []string{"one loading"}},
		{"it stays held back", append(slices.Clip(both), crashAt("one"), reboot, restore, cleanReboot), []string{"two"}, []string{"one loading"}},
		{"one after the other crashes", append(slices.Clip(both), crashAt("one"), reboot, crashAt("two"), reboot), nil, []string{"one loading", "two loading"}},
		{"accepted anew it is tried again", append(slices.Clip(both), crashAt("one"), reboot, restore, accept("one"), cleanReboot), []string{"one", "two"}, nil},
		{"another build of it is tried", append(slices.Clip(both), crashAt("one"), reboot, restore, install("one", "v2", true), cleanReboot), []string{"one", "two"}, nil},
		{"the same build installed again is not", append(slices.Clip(both), crashAt("one"), reboot, restore, install("one", "v1", false), cleanReboot),
			[]string{"two"}, []string{"one loading"}},
		{"a crash as one is loaded by hand", append(slices.Clip(both), crashByHand("one", "v1"), reboot), []string{"two"}, []string{"one loading"}},
		{"a loader that died, and a restore in the same boot", append(slices.Clip(both), crashByHand("one", "v1")), []string{"two"}, []string{"one loading"}},
		{"two unclean restarts after a restore", append(slices.Clip(both), repeat(2, restore, reboot)), []string{"one", "two"}, nil},
		{"three in a row", append(slices.Clip(both), repeat(3, restore, reboot)), nil, []string{"one crash-loop", "two crash-loop"}},
		{"three, but one was clean", append(slices.Clip(both), repeat(2, restore, reboot), restore, cleanReboot, restore, reboot), []string{"one", "two"}, nil},
		{"any number, if each had settled", append(slices.Clip(both), repeat(5, restore, settled, reboot)), []string{"one", "two"}, nil},
		{"any number, if nothing was restored", []act{spare, repeat(5, restore, reboot), accept("spare")}, []string{"spare"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, k := testStore(newCutDisk()), &kernel{boot: "b"}
			for _, a := range tt.acts {
				if err := a(s, k); err != nil {
					t.Fatal(err)
				}
			}
			k.active = nil
			planned, err := s.PlanRestore(k.machine())
			if err != nil {
				t.Fatal(err)
			}
			if err := restore(s, k); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.restored, k.active); d != "" {
				t.Errorf("restored: %s", d)
			}
			var plan []string
			for _, p := range planned.Patches {
				if p.Action == WouldBe {
					plan = append(plan, p.Name)
				}
			}
			// What a dead loader has left shows only once the lock is held.
			if d := cmp.Diff(tt.restored, plan); d != "" && !strings.Contains(tt.name, "a loader that died") {
				t.Errorf("the dry run says otherwise: %s", d)
			}
			if d := cmp.Diff(tt.held, heldBack(t, s)); d != "" {
				t.Errorf("held back: %s", d)
			}
		})
	}
}

func heldBack(t *testing.T, s *Store) []string {
	t.Helper()
	m, err := s.Read(testRelease)
	if err != nil {
		t.Fatal(err)
	}
	var held []string
	for _, p := range m.Patches {
		if p.Held != nil {
			held = append(held, p.Name+" "+string(p.Held.Kind))
			if p.Held.Reason == "" {
				t.Errorf("%s: no reason", p.Name)
			}
		}
	}
	return held
}

// TestRestoreFailures: what cannot be loaded keeps nothing else from being loaded.
func TestRestoreFailures(t *testing.T) {
	d := newCutDisk()
	s, k := testStore(d), &kernel{boot: "b"}
	for _, n := range []string{"one", "two", "three", "four"} {
		if err := install(n, "v1", true)(s, k); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(name, text string) {
		file := path.Join(testRelease, fileName(name, testModule(name, "v1").SHA256))
		if err := replaceFile(d, file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	damage("two", "not what was installed")
	k.load = func(name string) error {
		if name == "three" {
			return errors.New("the kernel does not want it")
		}
		return nil
	}
	k.active = []string{"four"}
	r, err := s.Restore(context.Background(), k.machine(), k, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range r.Patches {
		got = append(got, fmt.Sprintf("%s: %s: %s", p.Name, p.Action, p.Reason))
	}
	sum, bad := testModule("two", "v1").SHA256, Sum([]byte("not what was installed"))
	damaged := fmt.Sprintf("/store/%s/%s is not what was installed: its SHA-256 is %s, not %s", testRelease, fileName("two", sum), bad, sum)
	want := []string{"one: restored: ", "two: failed: " + damaged, "three: failed: the kernel does not want it", "four: already loaded: "}
	if d := cmp.Diff(want, got); d != "" || !r.Failed() {
		t.Errorf("failed %v, %s", r.Failed(), d)
	}
	m, err := s.Read(testRelease)
	if err != nil {
		t.Fatal(err)
	}
	if p := m.Find("three"); p.Failed == nil || p.Failed.Reason != "the kernel does not want it" || p.Held != nil {
		t.Errorf("%+v", p)
	}
	if d := cmp.Diff([]string{"two damaged"}, heldBack(t, s)); d != "" {
		t.Error(d)
	}
	if _, err := s.Accept(testRelease, "two"); err == nil || !strings.Contains(err.Error(), damaged+"; install it again") {
		t.Errorf("accepted though damaged: %v", err)
	}
	if err := install("two", "v1", false)(s, k); err != nil {
		t.Fatal(err)
	}
	if held := heldBack(t, s); held != nil {
		t.Errorf("installed again, and still %q", held)
	}
}

// TestReadRefuses: a manifest that is not one of ours is not worked with, and not
// written over.
func TestReadRefuses(t *testing.T) {
	good := func() *Manifest {
		m := newManifest(testRelease)
		p := testModule("one", "v1")
		m.Patches = []Patch{{Name: "one", SHA256: p.SHA256, File: fileName("one", p.SHA256)}}
		return m
	}
	tests := []struct {
		name   string
		change func(*Manifest)
		text   string // instead
		want   string
	}{
		{name: "empty", text: " ", want: "unexpected end of JSON input"},
		{name: "of the future", change: func(m *Manifest) { m.Version = 2 }, want: "version 2 of the format is unknown"},
		{name: "another release", change: func(m *Manifest) { m.Release = "6.1" }, want: `it is for kernel "6.1"`},
		{name: "twice", change: func(m *Manifest) { m.Patches = append(m.Patches, m.Patches[0]) }, want: `patch "one" is there twice`},
		{name: "a path for a name", change: func(m *Manifest) { m.Patches[0].Name = "../one" }, want: `"../one" is not a module's name`},
		{name: "a path for a file", change: func(m *Manifest) { m.Patches[0].File = "../../x.ko" }, want: "its file cannot be"},
		{name: "no checksum", change: func(m *Manifest) { m.Patches[0].SHA256 = "ab" }, want: `"ab" is not a SHA-256`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, m := newCutDisk(), good()
			text := []byte(tt.text)
			if tt.change != nil {
				tt.change(m)
				var err error
				if text, err = m.encode(); err != nil {
					t.Fatal(err)
				}
			}
			name := path.Join(testRelease, manifestName)
			if err := errors.Join(d.Mkdir(testRelease), replaceFile(d, name, text)); err != nil {
				t.Fatal(err)
			}
			s, k := testStore(d), &kernel{boot: "b"}
			for what, err := range map[string]error{"install": install("two", "v1", true)(s, k), "restore": restore(s, k), "mark": markClean(s, k)} {
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "manifest.json is damaged, and nothing was changed") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if now, err := d.ReadFile(name); err != nil || string(now) != string(text) {
				t.Errorf("it was changed: %q %v", now, err)
			}
		})
	}
}
