package verify

import (
	"debug/elf"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// fresh is a new source file with two warnings, and a variable that nothing uses.
const fresh = `
#define WARN(line) asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n2: .long 1b - ., 0\n.word " #line ", 0\n.org 2b + 12\n.popsection")
int fresh_boots = 1;
int fresh_show(int x) { if (x) WARN(1); if (x > 9) WARN(2); return x; }
`

// TestEntriesOnce: the walk goes on when what nothing refers to has been paired.
// Special-section entries that it has compared before are not asked for again;
// one that is not there is missed all the same.
func TestEntriesOnce(t *testing.T) {
	drop := func(o *elfobj.Object) {
		for _, s := range o.Sections {
			if s.Type == elf.SHT_RELA && s.Target.Name == "__bug_table" {
				s.Relocs = slices.DeleteFunc(s.Relocs, func(r elfobj.Reloc) bool { return r.Off == 12 })
			}
		}
	}
	for _, tt := range []struct {
		name string
		edit func(*elfobj.Object)
		want []string // the findings that the second proof makes
	}{
		{name: "all entries", edit: func(*elfobj.Object) {}},
		{name: "one is missing", edit: drop, want: []string{"the entry of __bug_table that describes this place in the patched object is missing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &Verifier{kernel: kernel(t, module(t), nil)}
			patched := compile(t, fresh)
			diff, err := elfdiff.Compare(&elfobj.Object{Type: elf.ET_REL, Machine: patched.Machine}, patched)
			if err != nil {
				t.Fatal(err)
			}
			u, err := v.newUnit(Unit{Source: "fresh.c", Object: VMLinux, Diff: diff, Patched: patched})
			if err != nil {
				t.Fatal(err)
			}
			v.units = []*unit{u}
			c := &check{v: v, counts: map[ProofName][]Count{}, missing: map[ProofName][]string{}, report: &Report{}}
			if !c.open(finish(t, compile(t, livepatch+fresh), klpNames, tt.edit)) {
				t.Fatalf("not a module: %+v", c.report.Findings)
			}
			c.report.Findings = nil // of the file as a whole
			show := c.named["fresh_show"][0]
			c.pair(pieceID{u, u.view.Named("fresh_show")}, place{show.Section, show.Value}, u.Source)
			c.drain()
			c.orphans()
			if _, ok := c.pairs[pieceID{u, u.view.Named("fresh_boots")}]; !ok {
				t.Error("the variable that nothing uses was not paired")
			}
			var got []string
			for _, f := range c.report.Findings {
				got = append(got, f.Detail)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
