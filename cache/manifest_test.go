package cache

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzManifest(f *testing.F) {
	m := (&manifest{}).with(alternative{deps: 1, small: []byte("result")}, []place{{name: "a.c", stamp: 5}, {name: "include/"}})
	f.Add(m.with(alternative{deps: 1, result: digest{1}}, []place{{name: "a.c", digest: digest{2}}, {name: "include/"}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		again, err := decodeManifest(m.encode())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, again, cmp.AllowUnexported(manifest{}, place{}, alternative{})); d != "" {
			t.Errorf("decode(encode(m)) (-want +got):\n%s", d)
		}
	})
}

// wide is a toy whose command reads 700 headers in 20 folders.
func wide(b *testing.B) *toy {
	y := newToy(b)
	for i := range 700 {
		name := fmt.Sprintf("include/linux/d%d/header%d.h", i%20, i)
		y.write("src/"+name, fmt.Sprintf("%d %s", i, payload(i, 20_000)))
		y.deps = append(y.deps, name)
	}
	for i := range 1500 { // as many names as include/linux has
		y.write(fmt.Sprintf("src/include/linux/other%d.h", i), "")
	}
	y.put(payload(1, 1<<20))
	return y
}

// BenchmarkHit: a process looks up one command of 700 files.
func BenchmarkHit(b *testing.B) {
	y := wide(b)
	for b.Loop() {
		y.wantHit(payload(1, 1<<20))
	}
}

// BenchmarkMiss: as BenchmarkHit, with a change in the last header.
func BenchmarkMiss(b *testing.B) {
	y := wide(b)
	y.write("src/"+y.deps[len(y.deps)-1], "changed")
	for b.Loop() {
		y.wantMiss()
	}
}

// BenchmarkHitAfterCheckout: all files have to be read.
func BenchmarkHitAfterCheckout(b *testing.B) {
	y := wide(b)
	for b.Loop() {
		b.StopTimer()
		for _, d := range y.deps {
			if d[0] != '/' {
				text, err := os.ReadFile(y.at("src/" + d))
				if err != nil {
					b.Fatal(err)
				}
				y.write("src/"+d, string(text))
			}
		}
		b.StartTimer()
		y.wantHit(payload(1, 1<<20))
	}
}

// BenchmarkPut: the first result of a command.
func BenchmarkPut(b *testing.B) {
	y := wide(b)
	n := 0
	for b.Loop() {
		n++
		if err := y.store.Put(y.unit(n), y.deps, ahead(), payload(1, 1<<20)); err != nil {
			b.Fatal(err)
		}
	}
}
