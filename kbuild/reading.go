package kbuild

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
)

// Reading tells which files units read. In a built tree these are the files
// that their compiles have read; in one that has not been built, all files that
// their includes can lead to whatever the configuration.
type Reading struct {
	// Files are absolute names. One that a build directory and the source tree
	// both may hold is named twice; one may have been removed since.
	Files []string
	// Units holds, for each unit in the order asked for, the files that it
	// reads, as indices of Files. It is nil for a unit of which nothing is known.
	Units [][]uint32
}

// Reading returns what units of the tree read. Cache is as for Deps.
func (t *Tree) Reading(units []Unit, cache string) (*Reading, error) {
	if t.db != nil {
		g, err := t.includeGraph()
		if err != nil {
			return nil, err
		}
		return g.reading(units), nil
	}
	x, err := t.depsOnce(cache)
	if err != nil {
		return nil, err
	}
	return x.reading(t, units)
}

func (g *IncludeGraph) reading(units []Unit) *Reading {
	r := &Reading{Files: make([]string, len(g.includes)), Units: make([][]uint32, len(units))}
	for name, n := range g.numbers {
		r.Files[n] = name
	}
	byObject := map[string]int{}
	for i, u := range g.units {
		byObject[u.Object] = i
	}
	seen := make([]int, len(g.includes)) // number of the last walk that came by, from 1
	for i, u := range units {
		if at, ok := byObject[u.Object]; ok {
			r.Units[i] = g.walk(g.starts[at], seen, i+1)
		}
	}
	return r
}

// walk returns all vertices that can be reached from some.
func (g *IncludeGraph) walk(starts []int, seen []int, number int) []uint32 {
	out := []uint32{}
	todo := append([]int{}, starts...)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[n] == number {
			continue
		}
		seen[n] = number
		out = append(out, uint32(n))
		todo = append(todo, g.includes[n]...)
	}
	return out
}

func (x *DepIndex) reading(t *Tree, units []Unit) (*Reading, error) {
	r := &Reading{Units: make([][]uint32, len(units))}
	// The index does not say in which of the two folders a relative name lies.
	places := make([][]uint32, len(x.names))
	place := func(n uint32) []uint32 {
		if places[n] == nil {
			roots := []string{t.Source}
			if filepath.IsAbs(x.names[n]) {
				roots = []string{""}
			} else if t.Build != t.Source {
				roots = append(roots, t.Build)
			}
			for _, root := range roots {
				places[n] = append(places[n], uint32(len(r.Files)))
				r.Files = append(r.Files, filepath.Join(root, x.names[n]))
			}
		}
		return places[n]
	}
	byObject := map[string]int{}
	for i, o := range x.objects {
		byObject[x.names[o.object]] = i
	}
	for i, u := range units {
		at, ok := byObject[u.Object]
		if !ok {
			continue
		}
		o := x.objects[at]
		list := append([]uint32{}, place(o.source)...)
		for b := o.deps; len(b) > 0; {
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return nil, fmt.Errorf("internal error: dependency index of %s is damaged", u.Object)
			}
			list = append(list, place(uint32(v))...)
			b = b[n:]
		}
		r.Units[i] = list
	}
	return r, nil
}
